"""Where the tumour is: the measures worked by hand, scikit-learn's areas, honest intervals."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from training import localization
from training.localization import (
    HIT_IOU,
    MEASURES,
    chance,
    localization_intervals,
    localize,
    score_maps,
    score_masks,
)


def one(values, mask):
    """One map of a row of pixels and its outline."""
    return np.array([[values]], dtype=np.float32), np.array([[mask]], dtype=bool)


def some_maps(n=12, *, levels=None, seed=0):
    """Maps that know a little of the place, their outlines, and groups of three images."""
    rng = np.random.default_rng(seed)
    masks = rng.random((n, 16, 16)) < 0.1
    values = np.clip(rng.random(masks.shape) * 0.8 + masks * rng.random((n, 1, 1)) * 0.4, 0, 1)
    if levels:
        values = np.floor(values * levels) / levels
    return values.astype(np.float32), masks, np.arange(n) // 3


@pytest.mark.parametrize("levels", [None, 4], ids=["distinct", "tied"])
def test_pixel_areas_are_scikit_learns(levels):
    values, masks, _ = some_maps(levels=levels)
    metrics = score_maps(values, masks)
    expected = roc_auc_score(masks.ravel(), values.ravel())
    assert metrics["pixel_auroc"] == pytest.approx(expected, abs=1e-12)
    expected = average_precision_score(masks.ravel(), values.ravel())
    assert metrics["pixel_auprc"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 4], ids=["distinct", "tied"])
def test_the_best_dice_is_that_of_the_best_of_all_thresholds(levels):
    values, masks, _ = some_maps(n=3, levels=levels)
    dice = [
        2 * (masks & (values >= threshold)).sum() / (masks.sum() + (values >= threshold).sum())
        for threshold in np.unique(values)
    ]
    assert score_maps(values, masks)["best_dice"] == pytest.approx(max(dice), abs=1e-12)


def test_a_perfect_map_has_one_in_every_measure():
    masks = some_maps()[1]
    found = score_maps(masks.astype(np.float32), masks) | score_masks(masks, masks)
    assert found == dict.fromkeys(MEASURES, 1.0)


def test_a_zero_with_a_sign_is_a_zero():
    values, masks = one([-0.0, 0.5, 0.0, 0.0], [1, 1, 0, 0])
    assert score_maps(values, masks)["pixel_auroc"] == 0.75


def test_the_pointing_game_counts_where_the_maximum_lies():
    inside, mask = one([0, 0.2, 1, 0.9], [0, 0, 1, 0])
    outside, _ = one([0, 1, 0.9, 0.2], [0, 0, 1, 0])
    values, masks = np.concatenate([inside, outside]), np.concatenate([mask, mask])
    assert score_maps(values, masks)["pointing_game"] == 0.5


def test_a_tied_maximum_counts_by_the_share_of_the_tie_inside():
    values, masks = one([1, 1, 1, 0.2], [1, 0, 0, 0])
    assert score_maps(values, masks)["pointing_game"] == pytest.approx(1 / 3)


def test_masks_are_scored_by_their_overlap_and_an_empty_one_is_nothing():
    mask = [True] * 4 + [False] * 12
    full, quarter, less = [True] * 16, [True] + [False] * 15, [True] + [False] * 3 + [True] * 1
    less += [False] * 11  # meets one pixel of five: intersection over union 0.2
    predicted = np.array([[full], [quarter], [less], [[False] * 16]])
    masks = np.array([[mask]] * 4)
    scores = score_masks(predicted, masks)
    assert HIT_IOU == 0.25
    assert scores["mask_hit_rate"] == 0.5  # the first two reach 0.25 and no more
    assert scores["mask_dice"] == pytest.approx((8 / 20 + 2 / 5 + 2 / 6 + 0) / 4)


def test_chance_is_what_a_constant_map_and_a_mask_of_everything_get():
    masks = np.zeros((4, 16, 16), dtype=bool)
    masks[:, :2] = True  # an eighth of the frame
    masks[0, :8] = True  # half of it
    constant = np.full(masks.shape, 0.5, dtype=np.float32)
    everything = score_maps(constant, masks) | score_masks(np.ones_like(masks), masks)
    assert chance(masks) == pytest.approx(everything)
    assert chance(masks)["mask_hit_rate"] == 0.25


def test_images_without_an_outline_are_passed_over():
    values, masks, groups = some_maps()
    more = np.concatenate([values, values[::-1]])
    outlines = np.concatenate([masks, np.zeros_like(masks)])
    outlines[-1] = True  # no place: the outline is the whole frame
    twice = np.concatenate([groups, groups + 100])
    predicted = more > 0.6
    assert score_maps(more, outlines) == score_maps(values, masks)
    assert score_masks(predicted, outlines) == score_masks(values > 0.6, masks)
    assert chance(outlines) == chance(masks)
    assert localize(more, predicted, outlines, twice) == localize(
        values, values > 0.6, masks, groups
    )


def test_without_any_outline_there_is_nothing_to_say():
    values, masks, groups = some_maps()
    masks[:] = False
    for shorter in (slice(None), slice(0)):
        v, m, g = values[shorter], masks[shorter], groups[shorter]
        assert score_maps(v, m) == score_masks(m, m) == chance(m) == {}
        assert localization_intervals(v, m, g, predicted=m) == {}
        assert localize(v, m, m, g) is None


def test_a_resample_of_every_image_once_is_the_point_estimate():
    values, masks, _ = some_maps(n=40)
    exact = score_maps(values, masks)
    resampled = localization._resampled_areas(np.ones((1, 40)), values, masks)
    for name, found in resampled.items():
        assert found[0] == pytest.approx(exact[name], abs=1 / localization.N_LEVELS)


def test_a_resample_weighs_an_image_as_that_many_copies_of_it():
    values, masks, _ = some_maps(n=3, levels=32)
    weights = np.array([[2.0, 0, 1]])
    resampled = localization._resampled_areas(weights, values, masks)
    copies = [0, 0, 2]
    exact = score_maps(values[copies], masks[copies])
    for name, found in resampled.items():
        assert found[0] == pytest.approx(exact[name], abs=1e-12)


def test_groups_are_drawn_whole():
    weights = localization._group_weights(np.array([7, 7, 3, 3, 5]), n=50, seed=0)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 3]).all()
    assert (weights[:, [0, 2, 4]].sum(axis=1) == 3).all()
    assert len(np.unique(weights, axis=0)) > 5


def test_every_measure_has_its_value_interval_and_chance():
    values, masks, groups = some_maps(n=60)
    found = localize(values, values > 0.6, masks, groups)
    assert (found.n_images, found.n_groups) == (60, 20)
    for numbers in (found.metrics, found.intervals, found.chance):
        assert set(numbers) == set(MEASURES)
    for name, (low, high) in found.intervals.items():
        assert low <= found.metrics[name] <= high
    assert list(localization_intervals(values, masks, groups)) == list(MEASURES)[:4]


def test_the_intervals_of_a_perfect_map_are_points():
    masks = some_maps()[1]
    unequal = np.repeat([0, 1, 2], [1, 3, 8])
    found = localize(masks.astype(np.float32), masks, masks, unequal)
    assert found.intervals == dict.fromkeys(MEASURES, (1.0, 1.0))


def test_copies_in_a_group_do_not_narrow_an_interval():
    values, masks, _ = some_maps(n=20)
    predicted, images = values > 0.6, np.arange(20)
    alone = localization_intervals(values, masks, images, predicted=predicted)
    copies = np.repeat(images, 4)
    copied = values[copies], masks[copies]
    grouped = localization_intervals(*copied, copies, predicted=predicted[copies])
    ungrouped = localization_intervals(*copied, np.arange(80), predicted=predicted[copies])
    for name in MEASURES:
        assert grouped[name] == pytest.approx(alone[name])
        assert np.ptp(ungrouped[name]) < 0.7 * np.ptp(grouped[name])


def test_the_same_seed_gives_the_same_intervals():
    values, masks, groups = some_maps()
    same = [localization_intervals(values, masks, groups, seed=seed) for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_shapes_that_do_not_agree_are_said():
    values, masks, _ = some_maps()
    with pytest.raises(ValueError, match=r"error maps and outlines must have one shape, got"):
        score_maps(values[:, :8], masks)
    with pytest.raises(ValueError, match=r"masks and outlines must have one shape, got"):
        score_masks(masks[:, :8], masks)
    with pytest.raises(ValueError, match=r"error_maps must be numbers in \[0, 1\]"):
        score_maps(values + 1, masks)
