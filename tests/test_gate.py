"""The gate's rules on kept answers: what passes, what does not, and how it is said."""

import numpy as np
import pandas as pd
import pytest

from studies.promotion.gate import KeptAnswers, Limits, judge

N = 100  # images of each class, each a group


def answers(*, missed=0, alarms=0, first=0, n=N):
    """n healthy and n tumour images from number `first` on; some tumours missed, some alarms."""
    labels = np.repeat([0, 1], n)
    predicted = labels.copy()
    predicted[:alarms] = 1
    predicted[n : n + missed] = 0
    numbers = np.concatenate([np.arange(first, first + n)] * 2)
    return pd.DataFrame(
        {
            "file": [f"{label}/{i}.png" for label, i in zip(labels, numbers, strict=True)],
            "label": labels,
            "group": numbers + 10_000 * labels,
            "score": predicted - 0.5,
            "predicted": predicted,
        }
    )


FLOORS = {"always_tumor": answers(alarms=N), "nearest_neighbor": answers(missed=30, alarms=30)}


def contender(name="models:/giaem/1", *, data="abc", floors=None, **wrong):
    floors = FLOORS if floors is None else floors
    beside = {floor: table.copy() for floor, table in floors.items()}
    return KeptAnswers(name, data, answers(**wrong), beside)


def failed(contender, champion=None, **limits):
    """The rules that are not kept, with what was found."""
    checks = judge(contender, champion, Limits(**limits))
    return {check.rule: check.found for check in checks if not check.passed}


def test_a_good_model_passes_every_rule():
    assert failed(contender(missed=1, alarms=5)) == {}


def test_a_recall_that_is_not_shown_fails_and_says_by_how_much():
    (found,) = failed(contender(missed=5)).values()
    bound = "recall 0.950; over 100 groups of tumours its lower 95 % bound is 0.888, 0.012 below"
    assert found == f"{bound} the floor"
    assert failed(contender(missed=4)) == {}  # 0.902: Wilson's bound of 96 of 100


def test_a_recall_that_no_model_can_show_says_so():
    few = KeptAnswers(
        "models:/few/1", "abc", answers(n=20), {"always_tumor": answers(alarms=20, n=20)}
    )
    found = failed(few)["recall is shown to be at least 0.9"]
    assert "No model can pass here: with every tumour found 20 groups show 0.839" in found
    assert "test on 35 groups" in found


def test_a_group_of_copies_is_one_tumour():
    copies = contender(missed=0)
    for table in (copies.answers, *copies.floors.values()):
        table["group"] //= 10
    assert "over 10 groups" in failed(copies)["recall is shown to be at least 0.9"]


def test_too_many_alarms_fail():
    assert "specificity is at least 0.5" in failed(contender(alarms=51))
    assert "specificity is at least 0.5" not in failed(contender(alarms=50))


def test_a_floor_that_is_not_beaten_fails():
    good = {"nearest_neighbor": answers(missed=1, alarms=6)}
    found = failed(contender(missed=1, alarms=5, floors=good))
    assert list(found) == ["the floor nearest_neighbor is beaten"]


def test_a_floor_that_flags_everyone_is_beaten_by_what_keeps_its_specificity():
    always = {"always_tumor": answers(alarms=N)}
    assert failed(contender(alarms=40, floors=always)) == {}
    assert "the floor always_tumor is beaten" in failed(contender(alarms=60, floors=always))


def test_floors_that_are_not_known_are_not_taken_for_beaten():
    assert list(failed(contender(floors={}))) == ["every floor is beaten"]


def test_a_better_model_passes_beside_the_champion():
    champion = contender("models:/tumor-detector/1", missed=1, alarms=25)
    assert failed(contender(missed=1, alarms=5), champion) == {}


WORSE_RECALL = "its recall is not worse than the champion's by more than 0.02"
NOT_BETTER = "its F2 is better than the champion's"


def test_a_model_that_is_as_good_as_the_champion_does_not_replace_it():
    champion = contender("models:/tumor-detector/1", missed=1, alarms=5)
    found = failed(contender(missed=1, alarms=5), champion)
    assert list(found) == [NOT_BETTER]
    assert found[NOT_BETTER].startswith("0.000 higher (0.000 to 0.000) on 200 shared test images")


def test_fewer_alarms_do_not_buy_a_worse_recall():
    champion = contender("models:/tumor-detector/1", missed=0, alarms=45)
    found = failed(contender(missed=4, alarms=0), champion, recall_floor=0.8)
    assert list(found) == [WORSE_RECALL]
    assert found[WORSE_RECALL].startswith("0.040 lower (")
    assert (
        failed(contender(missed=4, alarms=0), champion, recall_floor=0.8, recall_margin=0.1) == {}
    )


def test_only_images_that_neither_has_trained_on_are_compared():
    champion = contender("models:/tumor-detector/1", first=60)
    found = failed(contender(missed=1), champion)
    assert "on 80 shared test images of 80 groups" in found[NOT_BETTER]


@pytest.mark.parametrize("other", [{"data": "other"}, {"first": N}], ids=["data", "images"])
def test_models_without_common_test_images_cannot_be_compared(other):
    champion = contender("models:/tumor-detector/1", **other)
    found = failed(contender(missed=1), champion)
    assert list(found) == [WORSE_RECALL, NOT_BETTER]
    assert "share no test images of both classes" in found[NOT_BETTER]
