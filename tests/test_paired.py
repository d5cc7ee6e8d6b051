"""Two methods on the same images: the difference, and an interval over groups of near-copies."""

import numpy as np
import pytest

from training.floors import evaluate_scored
from training.paired import Difference, pair

LABELS = np.repeat([0, 1], 40)
GROUPS = np.arange(80)


def answers(name, predicted, *, groups=GROUPS, labels=LABELS):
    predicted = np.asarray(predicted)
    return evaluate_scored(name, labels, groups, predicted - 0.5, predicted)


def missing(n):
    """Right everywhere but for the first n tumours."""
    predicted = LABELS.copy()
    predicted[40 : 40 + n] = 0
    return predicted


def test_a_method_does_not_differ_from_itself():
    one = answers("one", missing(4))
    assert set(pair(one, one).values()) == {Difference(0.0, 0.0, 0.0)}


def test_a_difference_is_that_of_the_two_metrics_and_turns_its_sign():
    better, worse = answers("better", missing(2)), answers("worse", missing(12))
    found = pair(better, worse)["recall"]
    assert found.value == pytest.approx(0.25)
    assert 0 < found.low < 0.25 < found.high
    assert found.is_better and not found.is_worse
    turned = pair(worse, better)["recall"]
    assert turned == pytest.approx((-found.value, -found.high, -found.low))
    assert turned.is_worse and not turned.is_better


def test_images_that_both_miss_make_no_difference_uncertain():
    found = pair(answers("one", missing(20)), answers("other", missing(20)))["recall"]
    assert found == (0, 0, 0)  # two separate intervals would be 0.3 wide


def test_copies_of_one_image_are_one_observation():
    in_tens = np.concatenate([np.arange(40), 40 + np.arange(40) // 10])
    singly = pair(answers("one", missing(0)), answers("other", missing(10)))["recall"]
    grouped = pair(
        answers("one", missing(0), groups=in_tens),
        answers("other", missing(10), groups=in_tens),
    )["recall"]
    assert singly.value == grouped.value
    assert singly.is_better
    assert not grouped.is_better  # all ten are one group of four


def test_answers_to_other_images_are_refused():
    with pytest.raises(ValueError, match="one and other did not answer the same images"):
        pair(answers("one", missing(0)), answers("other", missing(0), groups=GROUPS + 1))
