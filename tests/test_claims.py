"""What may be claimed follows from the numbers, by the rules that are written there."""

import numpy as np
import pytest

from studies.claims import Grounds, say_control, say_level, say_limits, say_rivals, write_claims
from studies.summary import DISCLAIMER
from training.floors import Scored
from training.over_splits import Repeated

METRICS = ("auroc", "macro_f1", "specificity_at_95_recall")


def repeated(name, *auroc, width=0.02):
    """A method with these AUROC in its splits; its resamples lie around their mean."""
    nothing = np.zeros(0)
    answers = [
        Scored(name, nothing, nothing, nothing, nothing, dict.fromkeys(METRICS, value), {})
        for value in auroc
    ]
    around = np.mean(auroc) + np.linspace(-width, width, 1001)
    return Repeated(name, answers, dict.fromkeys(METRICS, around))


def grounds(method, *, rivals=(), controls=(), data="br35h", protocol="grouped", looks=(1,) * 5):
    return Grounds(method, list(rivals), list(controls), data, protocol, (156, 250), list(looks))


FIVE = (0.95, 0.96, 0.97, 0.98, 0.99)


def test_an_interval_above_chance_tells_tumours_from_health():
    sentence = say_level(grounds(repeated("good", *FIVE)))
    assert "ranks tumours above healthy" in sentence
    assert "0.970" in sentence and "0.951 to 0.989" in sentence
    assert "from 0.950 to 0.990" in sentence and "5 splits" in sentence


def test_an_interval_that_touches_chance_tells_nothing():
    sentence = say_level(grounds(repeated("poor", *[0.515] * 5)))
    assert "not shown to tell anything" in sentence


def test_a_rival_below_in_every_split_and_every_resample_is_beaten():
    rivals = [repeated("mean_intensity", *[0.7] * 5), repeated("nearest_neighbor", *[0.8] * 5)]
    (sentence,) = say_rivals(grounds(repeated("good", *FIVE), rivals=rivals))
    assert "It beats every floor and confound in every split" in sentence
    assert "`nearest_neighbor`, by 0.170 to 0.170" in sentence


def test_a_rival_above_in_one_split_is_not_beaten():
    rivals = [
        repeated("mean_intensity", 0.96, 0.7, 0.7, 0.7, 0.7),
        repeated("nearest_neighbor", *[0.8] * 5),
    ]
    beaten, other = say_rivals(grounds(repeated("good", *FIVE), rivals=rivals))
    assert "It beats `nearest_neighbor` in every split" in beaten
    assert "not shown to beat `mean_intensity`" in other and "4 of 5 splits" in other


def test_a_rival_that_equals_it_in_one_split_is_not_beaten():
    rival = repeated("mean_intensity", 0.95, 0.7, 0.7, 0.7, 0.7)
    (sentence,) = say_rivals(grounds(repeated("good", *FIVE), rivals=[rival]))
    assert "4 of 5 splits" in sentence


def test_a_rival_that_may_lead_under_other_patients_is_not_beaten():
    rival = repeated("mean_intensity", *[0.94] * 5, width=0.1)
    (sentence,) = say_rivals(grounds(repeated("good", *FIVE), rivals=[rival]))
    assert "not shown to beat" in sentence and "5 of 5 splits" in sentence


@pytest.mark.parametrize("auroc", [0.485, 0.5, 0.515])
def test_a_control_whose_interval_holds_chance_is_at_chance(auroc):
    control = repeated("silhouettes", *[auroc] * 5)
    sentence = say_control(control, repeated("good", *FIVE))
    assert "is at chance" in sentence and "outlines of the heads" in sentence


def test_a_control_above_chance_and_below_the_method_takes_a_part():
    sentence = say_control(repeated("silhouettes", *[0.6] * 5), repeated("good", *FIVE))
    assert "not at chance" in sentence and "part of its AUROC" in sentence


def test_a_control_as_good_as_the_method_takes_all():
    control = repeated("silhouettes", *FIVE)
    sentence = say_control(control, repeated("good", *FIVE))
    assert "from there alone" in sentence


def test_a_control_below_chance_is_not_at_chance():
    sentence = say_control(repeated("permuted_labels", *[0.4] * 5), repeated("good", *FIVE))
    assert "not at chance" in sentence and "below it" in sentence


def test_one_public_data_set_and_its_groups_are_always_named():
    (sentence,) = say_limits(grounds(repeated("good", *FIVE)))
    assert "One public data set" in sentence and "156" in sentence and "250" in sentence


def test_fewer_than_five_splits_are_called_few():
    sentence = say_limits(grounds(repeated("good", *FIVE[:4]), looks=(1,) * 4))[0]
    assert "4 splits are few" in sentence
    assert "1 split is few" in say_limits(grounds(repeated("good", 0.9), looks=(1,)))[0]


def test_the_papers_split_is_said_to_leak():
    sentences = say_limits(grounds(repeated("good", *FIVE), protocol="paper"))
    assert any("leaks" in sentence for sentence in sentences)


def test_the_phantom_is_said_to_be_one():
    sentences = say_limits(grounds(repeated("good", *FIVE), data="phantom"))
    assert any("drawn by a program" in sentence for sentence in sentences)


def test_a_second_look_at_a_test_split_is_told():
    sentences = say_limits(grounds(repeated("good", *FIVE), looks=(1, 1, 3, 1, 1)))
    assert any("up to 3 times" in sentence for sentence in sentences)


def test_the_statement_ends_with_what_it_is_not():
    assert DISCLAIMER in write_claims(grounds(repeated("good", *FIVE)))[-1]
