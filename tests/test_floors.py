"""The floors choose on validation, answer the test images, and answer them as defined."""

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors

from training.data import Dataset, Splits
from training.floors import best_threshold, distance_to_nearest, evaluate_scored, floors


def grey_dataset(greys, labels):
    """One-colour images of 8 x 8, each a group of its own."""
    n = len(greys)
    images = np.broadcast_to(np.array(greys, dtype=np.uint8)[:, None, None], (n, 8, 8)).copy()
    return Dataset(
        name="grey",
        images=images,
        labels=np.array(labels),
        groups=np.arange(n),
        masks=np.zeros_like(images, dtype=bool),
        has_mask=np.zeros(n, dtype=bool),
        manifest=pd.DataFrame(),
        left_out=pd.DataFrame(),
        preprocess="head",
        digest="0" * 32,
    )


@pytest.fixture
def darker_is_tumor():
    """Tumours are darker than 100, but for one bright tumour in the test split."""
    dataset = grey_dataset(
        [200, 180, 190, 170, 60, 80, 210, 160, 50, 90, 220],
        [0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1],
    )
    return dataset, Splits(train=np.arange(2), val=np.arange(2, 6), test=np.arange(6, 11))


def test_the_floors_come_in_their_order_and_always_tumor_is_infeasible(darker_is_tumor):
    scored = {floor.name: floor for floor in floors(*darker_is_tumor)}
    assert list(scored) == ["always_tumor", "mean_intensity", "giaem_on_images", "nearest_neighbor"]
    assert scored["always_tumor"].metrics["specificity"] == 0
    assert scored["always_tumor"].metrics["recall"] == 1


def test_mean_intensity_finds_that_darker_means_tumor(darker_is_tumor):
    scored = {floor.name: floor for floor in floors(*darker_is_tumor)}
    assert scored["mean_intensity"].predicted.tolist() == [0, 0, 1, 0, 0]
    # the threshold is the brightest validation tumour, 80: the test tumour of 90 is missed
    assert scored["mean_intensity"].scores.tolist() == [-130, -80, 30, -10, -140]


def test_the_nearest_neighbor_answers_by_its_references_only(darker_is_tumor):
    scored = {floor.name: floor for floor in floors(*darker_is_tumor)}
    nearest = scored["nearest_neighbor"]
    assert nearest.predicted.tolist() == [0, 0, 1, 1, 0]
    # grey 210: 8 px x 10 / 255 from the healthy 200, 8 px x 130 / 255 from the tumour 80
    assert nearest.scores[0] == pytest.approx(8 * (10 - 130) / 255, rel=1e-5)


def test_the_test_images_do_not_move_the_choice(darker_is_tumor):
    dataset, splits = darker_is_tumor
    dataset.labels[splits.test] = 1 - dataset.labels[splits.test]
    scored = {floor.name: floor for floor in floors(dataset, splits)}
    assert scored["mean_intensity"].scores.tolist() == [-130, -80, 30, -10, -140]


def test_distance_to_nearest_equals_scikit_learns_over_several_chunks():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (600, 16, 16), dtype=np.uint8)
    references = rng.integers(0, 256, (50, 16, 16), dtype=np.uint8)
    references[7] = images[599]
    exact = NearestNeighbors(n_neighbors=1).fit(references.reshape(50, -1) / 255)
    expected = exact.kneighbors(images.reshape(600, -1) / 255)[0][:, 0]
    np.testing.assert_allclose(distance_to_nearest(images, references), expected, atol=0.02)


def test_the_best_threshold_gives_up_recall_for_the_specificity_floor():
    labels, scores = [0, 0, 1, 0, 1, 1], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert best_threshold(labels, scores, specificity_floor=2 / 3)[0] == 2
    threshold, f2 = best_threshold(labels, scores, specificity_floor=1)
    assert threshold == 4
    assert f2 == pytest.approx(5 * (2 / 3) / (5 + 2 / 3 - 1))


def test_where_only_flagging_nobody_is_feasible_the_threshold_is_above_every_score():
    threshold, f2 = best_threshold([1, 0], [1.0, 2.0], specificity_floor=1)
    assert (threshold > 2, f2) == (True, 0)
    assert np.isfinite(threshold)


def test_evaluated_answers_carry_their_metrics_and_intervals():
    labels = np.array([0, 0, 1, 1])
    scored = evaluate_scored("perfect", labels, np.arange(4), np.array([-2, -1, 1, 2]), labels)
    assert scored.metrics["f2"] == 1
    assert scored.intervals["f2"] == (1, 1)
