"""Grey values made comparable: by z-scores and by matching to healthy slices."""

import numpy as np
import pytest

from training.intensity import BACKGROUND, ZSCORE_MEAN, ZSCORE_SD, learn_template, standardize


@pytest.fixture
def slices() -> np.ndarray:
    """Two slices: a disc of noise on a dark background, the second darker and flatter."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 32
    inside = y**2 + x**2 < 28**2
    bright = np.where(inside, rng.normal(150, 30, inside.shape), 3)
    dark = np.where(inside, rng.normal(80, 12, inside.shape), 8)
    return np.clip(np.stack([bright, dark]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("rule", ["zscore", "histogram"])
def test_slices_of_other_contrast_become_alike_and_background_stays(slices, rule):
    template = learn_template(slices[:1])
    matched = standardize(slices, rule, template)
    background = slices <= BACKGROUND
    np.testing.assert_array_equal(matched[background], slices[background])
    tissue = [image[image > BACKGROUND].astype(float) for image in matched]
    assert abs(tissue[0].mean() - tissue[1].mean()) < 2
    assert abs(tissue[0].std() - tissue[1].std()) < 2
    assert matched.dtype == np.uint8


def test_z_scores_have_the_mean_and_spread_that_they_say(slices):
    tissue = [i[i > BACKGROUND] for i in standardize(slices, "zscore", np.zeros(256))]
    for values in tissue:
        assert values.mean() == pytest.approx(ZSCORE_MEAN, abs=3)
        assert values.std() == pytest.approx(ZSCORE_SD, abs=3)


def test_an_image_matched_to_itself_hardly_changes(slices):
    template = learn_template(slices[:1])
    matched = standardize(slices[:1], "histogram", template).astype(int)
    inner = (slices[:1] > 90) & (slices[:1] < 210)  # 2 sd: in the tails a grey value is rare
    assert np.abs(matched - slices[:1])[inner].max() <= 3


@pytest.mark.parametrize("rule", ["none", "zscore", "histogram"])
def test_a_black_image_stays_black(rule):
    black = np.zeros((1, 8, 8), np.uint8)
    assert not standardize(black, rule, learn_template(black)).any()


def test_matching_keeps_the_order_of_grey_values(slices):
    for rule in ("zscore", "histogram"):
        matched = standardize(slices, rule, learn_template(slices[:1]))
        for before, after in zip(slices, matched, strict=True):
            order = np.argsort(before, axis=None, kind="stable")
            assert (np.diff(after.ravel()[order].astype(int)) >= 0).all()
