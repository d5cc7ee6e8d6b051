"""Map score: each statistic by hand, its boundary, and what a mask shows."""

import numpy as np
import pytest

from models.heads import MapScore

QUARTERS = np.array([[[0.0, 0.2], [0.5, 1.0]]], dtype=np.float32)


def statistic_of(maps, name):
    return MapScore(name, 0.0).fit(maps).decision_function(maps)


@pytest.mark.parametrize(("name", "value"), [("mean", 0.425), ("p99", 1.0), ("max", 1.0)])
def test_the_decision_is_the_statistic_less_the_threshold(name, value):
    assert statistic_of(QUARTERS, name) == pytest.approx([value])
    decision = MapScore(name, 0.25).fit(QUARTERS).decision_function(QUARTERS)
    assert decision == pytest.approx([value - 0.25])


@pytest.mark.parametrize("name", ["mean", "p99", "max"])
@pytest.mark.parametrize("value", [0.3, 0.7])
def test_a_statistic_at_the_threshold_is_a_tumour(name, value):
    maps = np.full((1, 5, 7), value, dtype=np.float32)
    assert MapScore(name, value).fit(maps).decision_function(maps) == [0]
    assert MapScore(name, value).fit(maps).predict(maps) == [1]
    above = float(np.nextafter(np.float32(value), np.float32(1)))
    assert MapScore(name, above).fit(maps).predict(maps) == [0]


@pytest.mark.parametrize("side", [1, 2, 10, 24, 128])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_99th_percentile_is_numpys_with_method_higher(side, dtype):
    maps = np.random.default_rng(side).random((3, side, side)).astype(dtype)
    expected = np.percentile(maps, 99, axis=(1, 2), method="higher")
    np.testing.assert_array_equal(statistic_of(maps, "p99"), expected)


def test_of_a_hundred_and_one_pixels_the_99th_percentile_is_the_second_largest():
    maps = (np.arange(101) / 101).reshape(1, 1, 101)
    assert statistic_of(maps, "p99") == [99 / 101]


def test_one_bright_pixel_moves_the_maximum_and_not_the_99th_percentile():
    maps = np.zeros((1, 20, 20))
    maps[0, 3, 4] = 1
    assert statistic_of(maps, "max") == [1]
    assert statistic_of(maps, "p99") == [0]
    assert statistic_of(maps, "mean") == [1 / 400]


@pytest.mark.parametrize("name", ["mean", "p99", "max"])
def test_the_mask_is_the_pixels_at_or_over_the_threshold(name):
    mask = MapScore(name, 0.5).fit(QUARTERS).mask(QUARTERS)
    assert mask.tolist() == [[[False, False], [True, True]]]


def test_an_unknown_statistic_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"one of 'mean', 'p99', 'max', got 'median'"):
        MapScore("median").fit(QUARTERS)
