"""A classifier's predictor: from an image as it comes to an answer, saved and loaded."""

import numpy as np
import pytest
import torch

from training.classifier import ClassifierSpec
from training.classifier_predictor import (
    SMALLEST_SLOPE,
    Calibration,
    ClassifierPredictor,
    calibrate,
    decide,
)

TINY = {"image_size": 32, "width": 4}
CPU = torch.device("cpu")


@pytest.fixture
def predictor():
    spec = ClassifierSpec(TINY)
    return ClassifierPredictor("head", spec, spec.build().eval(), Calibration(2.0, 0.5), 0.5, CPU)


def images():
    rng = np.random.default_rng(0)
    blobs = [np.zeros((90, 70), np.uint8), np.zeros((64, 80, 3), np.uint8)]
    for blob in blobs:
        blob[10:50, 12:60] = rng.integers(80, 255, blob[10:50, 12:60].shape)
    return blobs


def test_a_saved_predictor_answers_as_before(predictor, tmp_path):
    predictor.save(tmp_path)
    again = ClassifierPredictor.load(tmp_path)
    assert again.calibration == predictor.calibration and again.threshold == 0.5
    assert again.predict(images()).equals(predictor.predict(images()))


def test_no_images_have_no_answers(predictor):
    assert predictor.predict([]).empty


def test_a_label_says_whether_the_score_reaches_zero(predictor):
    answers = predictor.predict(images())
    assert answers.label.tolist() == (answers.score >= 0).astype(int).tolist()


def test_a_threshold_of_a_half_is_the_calibrations_zero():
    log_odds = np.array([-0.3, -0.25, 0.0])
    assert decide(log_odds, Calibration(2.0, 0.5), 0.5).tolist() == pytest.approx([-0.1, 0, 0.5])
    assert decide(log_odds, Calibration(1.0, 0.0), 0.9)[2] == pytest.approx(-np.log(9))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1])
def test_a_threshold_that_no_probability_crosses_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\)"):
        decide(np.zeros(1), Calibration(1.0, 0.0), threshold)


def test_calibration_moves_the_border_between_the_classes_to_zero():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 100])
    log_odds = 7 + 2 * labels + rng.normal(0, 1, 400)  # border at 8, every image called a tumour
    slope, intercept = calibrate(log_odds, labels)
    assert -intercept / slope == pytest.approx(8, abs=0.2)
    assert slope == pytest.approx(2, abs=0.3)  # the log-odds of two normals, two apart


def test_a_network_worse_than_chance_is_not_turned_round():
    labels = np.repeat([0, 1], 50)
    assert calibrate(-4.0 * labels + np.linspace(0, 1, 100), labels).slope == SMALLEST_SLOPE
