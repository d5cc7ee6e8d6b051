"""What trials of a classifier's study share."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from studies.classification import Classification, score_classifier
from studies.study import Lab
from training.classifier_predictor import Calibration
from training.data import Splits


class CountingClassifier:
    """Knows every label, and counts what it is asked."""

    def __init__(self, dataset, answers_key: str = "one"):
        self.dataset, self.answers_key, self.asked = dataset, answers_key, []

    def scores(self, indices):
        self.asked.append("scores")
        return 2.0 * self.dataset.labels[indices] - 1

    def attribution_maps(self, indices):
        self.asked.append("maps")
        return self.dataset.masks[indices].astype(np.float32)


@pytest.fixture
def lab(phantom):
    known = np.arange(len(phantom.labels))
    store = SimpleNamespace(dataset=phantom)
    return Lab(store, Splits(known[:0], known[::2], known[1::2]), precision="fp32", seed=0)


def test_outlines_are_kept_for_each_split_by_itself(phantom, lab):
    other = replace(lab, splits=lab.splits._replace(val=lab.splits.val[:10]))
    for one in (lab, other):
        outlined = one.splits.val[phantom.has_mask[one.splits.val]]
        assert len(outlined) == len(one.outlines("val"))
        np.testing.assert_array_equal(one.splits.val[one.outlines("val").where], outlined)
    assert lab.outlines("val") is lab.outlines("val")


def test_trials_of_one_training_share_scores_and_maps_but_not_the_threshold(phantom, lab):
    classifier = CountingClassifier(phantom)
    low, high = (
        score_classifier(Classification(classifier, Calibration(1.0, 0.0), threshold), lab)
        for threshold in (0.5, 0.9)
    )
    assert classifier.asked == ["scores", "maps"]
    assert (low["recall"], high["recall"]) == (1, 0)  # of odds e : 1, a probability of 0.73
    assert low["pointing_game"] == high["pointing_game"] == 1


def test_another_training_is_asked_anew(phantom, lab):
    for key in ("one", "another"):
        classifier = CountingClassifier(phantom, key)
        score_classifier(Classification(classifier, Calibration(1.0, 0.0), 0.5), lab)
        assert classifier.asked == ["scores", "maps"]


def test_test_images_are_asked_each_time(phantom, lab):
    classifier = CountingClassifier(phantom)
    candidate = Classification(classifier, Calibration(1.0, 0.0), 0.5)
    for _ in range(2):
        candidate.answers(lab, "test")
    assert classifier.asked == ["scores", "scores"]
