"""GIAEM: both its boundaries, the shares, and the exact optimum against every other cut."""

import numpy as np
import pytest
from sklearn.metrics import fbeta_score, recall_score

from models.heads import GIAEM
from models.heads.giaem import best_giaem, objective_surface, shares, sort_maps

QUARTERS = np.array([[[0.0, 0.2], [0.5, 1.0]]], dtype=np.float32)


@pytest.fixture
def labelled():
    """Forty small maps; tumours (one in four) have somewhat larger errors."""
    random = np.random.default_rng(3)
    labels = np.tile([0, 0, 0, 1], 10)
    maps = random.random((40, 6, 6)) ** (2 - labels[:, None, None])
    return maps.astype(np.float32), labels


def f2(labels, predicted):
    weights = len(labels) / (2 * np.bincount(labels))[labels]
    return fbeta_score(labels, predicted, beta=2, sample_weight=weights, zero_division=0)


def test_an_error_at_the_threshold_counts():
    assert GIAEM(0.5, 0.5).fit(QUARTERS).predict(QUARTERS) == [1]
    assert GIAEM(np.nextafter(np.float32(0.5), 1), 0.5).fit(QUARTERS).predict(QUARTERS) == [0]


def test_a_share_at_the_tumor_index_is_a_tumor():
    assert GIAEM(0.2, 0.75).fit(QUARTERS).decision_function(QUARTERS) == [0]
    assert GIAEM(0.2, 0.75).fit(QUARTERS).predict(QUARTERS) == [1]
    assert GIAEM(0.2, 0.76).fit(QUARTERS).predict(QUARTERS) == [0]


def test_a_float32_error_of_07_reaches_a_threshold_of_07():
    maps = np.full((1, 2, 2), 0.7, dtype=np.float32)
    assert GIAEM(0.7, 1.0).fit(maps).predict(maps) == [1]
    assert GIAEM(np.float64(0.7), 1.0).fit(maps).predict(maps) == [1]
    assert shares(maps, [0.7]) == [[1]]


def test_shares_are_the_shares_of_pixels_at_or_above():
    np.testing.assert_array_equal(
        shares(QUARTERS, [0, 0.2, 0.3, 0.5, 1]), [[1, 0.75, 0.5, 0.5, 0.25]]
    )


def test_the_shares_are_those_of_a_count(labelled, keep):
    maps, _ = labelled
    maps[:, 0, :3] = 0, 0.5, 1
    for kind in (np.float32, np.float64):
        kept = keep(maps.astype(kind))
        for threshold in (0, 0.1, 0.5, 0.7, 0.99, 1):
            counted = (kept.values >= kind(threshold)).mean(axis=(1, 2))
            decision = GIAEM(threshold, 0).fit(kept).decision_function(kept)
            np.testing.assert_array_equal(decision, counted)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_maps_are_sorted_as_numpy_sorts_them(kind):
    random = np.random.default_rng(1)
    maps = np.stack(
        [
            random.random((20, 20)),
            random.random((20, 20)) ** 40,  # exponents of all sizes
            np.round(random.random((20, 20)) * 3) / 3,
            np.where(random.random((20, 20)) > 0.5, -0.0, np.finfo(np.float32).tiny / 4),
            np.ones((20, 20)),
        ]
    ).astype(kind)
    np.testing.assert_array_equal(sort_maps(maps), np.sort(maps.reshape(5, -1), axis=1))


@pytest.mark.parametrize("floor", [0, 0.5, 0.9, 1])
def test_the_best_giaem_beats_every_other_cut(labelled, floor):
    maps, labels = labelled
    thresholds = np.linspace(0, 1, 11)
    found = []
    for threshold in thresholds:
        for index in np.append(np.unique(shares(maps, [threshold])), 1):
            predicted = GIAEM(threshold, index).fit(maps).predict(maps)
            specificity = recall_score(labels, predicted, pos_label=0)
            if specificity >= floor:
                found.append((f2(labels, predicted), specificity))
    head = best_giaem(maps, labels, specificity_floor=floor, thresholds=thresholds)
    predicted = head.predict(maps)
    specificity = recall_score(labels, predicted, pos_label=0)
    assert (f2(labels, predicted), specificity) == pytest.approx(max(found))


def test_the_best_tumor_index_lies_midway_between_the_shares_it_parts():
    maps = np.zeros((4, 2, 4), dtype=np.float32)
    for i, pixels in enumerate((1, 2, 4, 6)):  # shares 1/8, 2/8, 4/8 and 6/8
        maps[i].flat[:pixels] = 1
    head = best_giaem(maps, [0, 0, 1, 1], thresholds=[0.5])
    assert head.tumor_index == 3 / 8


def test_equal_f_betas_are_decided_by_specificity():
    maps = np.zeros((3, 1, 4), dtype=np.float32)
    maps[0, 0, :3], maps[1, 0, :2] = 1, 1  # two healthy maps with more error than the tumour
    head = best_giaem(maps, [0, 0, 1], thresholds=[0.5], specificity_floor=0.5)
    assert head.predict(maps).tolist() == [0, 0, 0]


def test_a_floor_that_no_threshold_reaches_is_refused():
    with pytest.raises(ValueError, match=r"no GIAEM reaches a specificity of 0.5"):
        best_giaem(QUARTERS.repeat(2, axis=0), [0, 1], thresholds=[0])


def test_labels_of_one_class_are_refused(labelled):
    with pytest.raises(ValueError, match=r"labels must hold both 0 and 1, got \[1\]"):
        best_giaem(QUARTERS, [1])
    with pytest.raises(ValueError, match="labels must hold both"):
        objective_surface(QUARTERS, [0], [0.5], [0.5])


def test_the_surface_is_what_each_pair_of_parameters_scores(labelled):
    maps, labels = labelled
    thresholds, indices = [0.2, 0.5, 0.8], [0, 0.25, 0.5, 1]
    f_beta, specificity = objective_surface(maps, labels, thresholds, indices)
    assert f_beta.shape == specificity.shape == (3, 4)
    for i, threshold in enumerate(thresholds):
        for j, index in enumerate(indices):
            predicted = GIAEM(threshold, index).fit(maps).predict(maps)
            assert f_beta[i, j] == pytest.approx(f2(labels, predicted))
            assert specificity[i, j] == pytest.approx(recall_score(labels, predicted, pos_label=0))
