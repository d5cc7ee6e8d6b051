"""What a reproduction makes of numbers then and now: verdicts, tolerances, words."""

import math
from datetime import UTC, datetime

import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from mlflow_server import KnownRun
from studies.provenance import Commit
from studies.reproduce.again import Again
from studies.reproduce.agreement import Tolerance, compare
from studies.reproduce.page import Reproduction, as_table, write_sentence
from studies.reproduce.recorded import Recorded, read_params
from studies.reproduce.reproduction import has_epochs
from studies.reproduce.surroundings import EXACT, Surrounding, check_images, elsewhere, tolerance
from studies.study import StudyError

LOOSE = Tolerance(metric=0.05, epoch=0.01, reason="for this test")
TAGS = {
    "study": "giaem",
    "trial": "3",
    "state": "COMPLETE",
    "device": "cpu",
    "device_name": "one",
    "threads": "1",
    "requirements": "a",
    "mlflow.source.git.commit": "abc",
}


def again(error=None, history=(), **metrics):
    return Again(metrics, list(history), error)


def recorded(holders=(), **tags):
    run = KnownRun("abc123", "giaem 003", "FINISHED", {**TAGS, **tags}, {}, {})
    return Recorded(run, {}, {"data": "auto"}, None, list(holders))


def done(agreement, around=()):
    first = Surrounding("commit", "abc", "abc")
    commit = Commit("abc", "")
    return Reproduction(recorded(), datetime.now(UTC), commit, [first, *around], agreement)


def test_equal_numbers_are_bit_equal():
    found = compare({"f2": [0.1 + 0.2]}, None, again(f2=0.1 + 0.2), EXACT)
    assert (found.word, found.agrees) == ("bit-equal", True)
    assert "to the last bit: 1 metrics" in write_sentence(done(found))


def test_the_last_bit_makes_a_difference_where_nothing_may_differ():
    found = compare({"f2": [0.3]}, None, again(f2=0.1 + 0.2), EXACT)
    assert (found.word, found.agrees) == ("differs", False)
    assert found.rows[0].difference == 0.1 + 0.2 - 0.3
    sentence = write_sentence(done(found))
    assert "differs from its record in f2. Nothing that is recorded around it" in sentence


def test_a_difference_within_the_tolerance_agrees_and_one_beyond_does_not():
    for value, word in ((0.75, "within tolerance"), (0.74, "differs")):
        assert compare({"f2": [0.79]}, None, again(f2=value), LOOSE).word == word


def test_counts_are_held_against_the_number_of_images():
    counts = {"tp": 50.0, "fp": 0.0, "tn": 48.0}
    then = {name: [value] for name, value in counts.items()} | {"fn": [2.0]}
    assert compare(then, None, again(**counts, fn=6.0), LOOSE).word == "within tolerance"
    assert compare(then, None, again(**counts, fn=8.0), LOOSE).word == "differs"


def test_epochs_are_compared_each_and_shown_where_they_differ_most():
    history = [{"loss": 3.0, "seconds": 9.0}, {"loss": 2.5, "seconds": 8.0}, {"loss": 1.0}]
    found = compare(
        {"loss": [3.0, 2.0, 1.0], "seconds": [1, 1]}, None, again(history=history), EXACT
    )
    (row,) = found.rows
    assert (row.name, row.then, row.now, row.n_epochs, row.verdict) == (
        "loss",
        2.0,
        2.5,
        3,
        "differs",
    )


def test_another_number_of_epochs_is_a_difference():
    found = compare({"loss": [3.0, 2.0]}, None, again(history=[{"loss": 3.0}]), LOOSE)
    assert found.word == "differs" and found.rows[0].then == "2 epochs"


def test_epochs_of_a_class_that_was_found_trained_are_left_out():
    history = [{"no_loss": 1.0, "val_kid": 5.0}, {"yes_loss": 2.0, "val_kid": 4.0}]
    found = compare({"yes_loss": [2.0], "val_kid": [4.0]}, None, again(history=history), EXACT)
    assert {row.name: row.verdict for row in found.rows} == {
        "yes_loss": "equal",
        "val_kid": "equal",
    }


def test_a_metric_that_is_gone_is_a_difference_and_a_new_one_is_none():
    assert compare({"f2": [1.0]}, None, again(f2=1.0, mcc=1.0), EXACT).word == "bit-equal"
    assert compare({"f2": [1.0], "mcc": [1.0]}, None, again(f2=1.0), EXACT).word == "differs"


def test_what_mlflow_does_not_store_is_not_missed():
    largest = 1.7976931348623157e308
    found = compare({"f2": [largest]}, None, again(f2=math.inf, auroc=math.nan, mcc=None), EXACT)
    assert found.word == "bit-equal"


def test_the_same_error_agrees_and_another_does_not():
    assert compare({}, "ValueError: odd", again("ValueError: odd"), EXACT).word == "same error"
    for then, now in (("ValueError: odd", None), (None, "ValueError: odd")):
        assert compare({}, then, again(now, f2=1.0), EXACT).word == "differs"


def test_parameters_come_back_from_their_texts_to_the_last_bit():
    space = {
        "flips": CategoricalDistribution(["none", False, 0.99]),
        "alpha": FloatDistribution(0, 1),
        "n": IntDistribution(1, 64, log=True),
        "left_out": FloatDistribution(0, 1),
    }
    described = {name: distribution_to_json(one) for name, one in space.items()}
    described["n"] = described["n"][:-1] + ', "when": {"flips": ["none"]}}'
    params = {"n": 16, "alpha": 0.1 + 0.2, "flips": False}
    read = read_params({name: str(value) for name, value in params.items()}, described)
    assert read == params and list(read) == ["flips", "alpha", "n"]
    assert read["flips"] is False and isinstance(read["n"], int)


@pytest.mark.parametrize("name", ["device", "threads", "packages"])
def test_another_machine_is_allowed_what_rounding_does(name):
    around = [Surrounding(name, "one", "other", "may")]
    assert tolerance(recorded(), around, "cpu") == elsewhere(f"other {name} round sums otherwise")
    assert tolerance(recorded(), [Surrounding(name, "one", "one")], "cpu") == EXACT


def test_other_code_is_allowed_nothing():
    assert tolerance(recorded(), [Surrounding("commit", "a", "b", "may")], "cpu") == EXACT


def test_a_gpu_is_allowed_what_rounding_does_on_the_same_one_too():
    assert "GPU" in tolerance(recorded(device="cuda"), [], "cuda").reason


def test_a_network_of_another_machine_is_allowed_what_rounding_does():
    holder = KnownRun("def", "", "FINISHED", {**TAGS, "threads": "2"}, {}, {})
    assert "network" in tolerance(recorded([holder]), [], "cpu").reason


def test_other_images_are_refused_with_the_cure():
    around = [Surrounding("data", "br35h 1", "br35h 2", "may")]
    with pytest.raises(StudyError, match=r"of trial 3 of giaem .*: data br35h 1 then, .*Put"):
        check_images(recorded(), around)


def test_a_difference_names_the_code_to_come_back_to():
    found = compare({"f2": [0.3]}, None, again(f2=0.4), EXACT)
    around = [
        Surrounding("commit", "abc", "def", "may"),
        Surrounding("uncommitted changes", "0123", "none", "may"),
    ]
    sentence = write_sentence(done(found, around))
    assert "`git checkout abc`, then `git apply changes/0123.diff`" in sentence


def test_a_training_is_pruned_where_its_record_ends():
    is_pruned = has_epochs({"yes_loss": [1.0, 0.5], "seconds": [1.0, 1.0, 1.0]})
    history = [{"no_loss": 1.0}, {"yes_loss": 1.0}, {"yes_loss": 0.5}]
    assert [is_pruned(history[:n]) for n in (1, 2, 3)] == [False, False, True]


def test_columns_of_a_table_stand_below_each_other():
    assert as_table(("a", "b"), [("long", "x|y")]).splitlines() == [
        "| a    | b    |",
        "| ---- | ---- |",
        "| long | x\\|y |",
    ]
