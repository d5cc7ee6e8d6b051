"""The contract of every head in HEADS: a new one is covered the day it is named there."""

import numba
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from models.heads import HEADS

SIDE = 24


@pytest.fixture(scope="module")
def maps():
    """Eight maps of noise, the odd ones with a bright square that grows."""
    random = np.random.default_rng(0)
    maps = 0.4 * random.random((8, SIDE, SIDE))
    for i in range(1, 8, 2):
        maps[i, 4 : 8 + i, 4 : 8 + i] += 0.5
    return maps.astype(np.float32)


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param]()


def learned(head):
    return {name: value for name, value in vars(head).items() if name.endswith("_")}


def test_clone_keeps_the_parameters_and_forgets_what_was_learned(head, maps):
    head.fit(maps)
    copy = clone(head)
    assert copy.get_params() == head.get_params()
    assert not learned(copy)


def test_parameters_set_are_those_got(head):
    numbers = {k: v for k, v in head.get_params().items() if v and not isinstance(v, str)}
    changed = {name: value / 2 for name, value in numbers.items()}
    assert head.set_params(**changed).get_params() | changed == head.get_params()


def test_fit_returns_the_head(head, maps):
    assert head.fit(maps, y=np.zeros(len(maps))) is head


def test_fit_and_predict_leave_the_maps_as_they_were(head, maps):
    before = maps.copy()
    head.fit(maps).predict(maps)
    head.mask(maps)
    np.testing.assert_array_equal(maps, before)


def test_what_is_learned_is_numbers_and_arrays(head, maps):
    for value in learned(head.fit(maps)).values():
        assert isinstance(value, int | float | np.ndarray)


def test_a_head_with_the_learned_attributes_of_another_decides_alike(head, maps):
    head.fit(maps)
    restored = clone(head)
    for name, value in learned(head).items():
        setattr(restored, name, value)
    np.testing.assert_array_equal(restored.decision_function(maps), head.decision_function(maps))


def test_predict_is_the_sign_of_the_decision(head, maps):
    decision, predicted = head.fit(maps).decision_function(maps), head.predict(maps)
    assert decision.shape == predicted.shape == (len(maps),)
    assert decision.dtype == np.float64 and predicted.dtype == np.int64
    np.testing.assert_array_equal(predicted, decision >= 0)


def test_the_mask_is_a_bool_for_each_pixel(head, maps):
    mask = head.fit(maps).mask(maps)
    assert mask.shape == maps.shape and mask.dtype == bool


def test_one_map_alone_is_decided_as_among_others(head, maps):
    decision = head.fit(maps).decision_function(maps)
    for i in range(len(maps)):
        assert head.decision_function(maps[i : i + 1]) == decision[i : i + 1]
        np.testing.assert_array_equal(head.mask(maps[i : i + 1])[0], head.mask(maps)[i])


def test_float32_and_float64_maps_are_decided_alike(head, maps):
    decision = head.fit(maps).decision_function(maps)
    wide = maps.astype(np.float64)
    np.testing.assert_array_equal(clone(head).fit(wide).decision_function(wide), decision)


def test_a_map_changed_in_place_is_decided_anew(head, maps):
    changing = maps.copy()
    before = head.fit(maps).decision_function(changing)
    changing[:] = changing[::-1].copy()
    np.testing.assert_array_equal(head.decision_function(changing), before[::-1])


def test_maps_that_are_kept_are_decided_as_an_array_is(head, maps, keep):
    kept = keep(maps)
    for _ in range(2):  # what the first finds is made, what the second finds is kept
        head.fit(kept)
        alone = clone(head).fit(maps)
        np.testing.assert_array_equal(head.decision_function(kept), alone.decision_function(maps))
        np.testing.assert_array_equal(head.mask(kept), alone.mask(maps))


def test_many_heads_over_kept_maps_decide_as_over_arrays(head, maps, keep):
    kept = keep(maps)
    random = np.random.default_rng(2)
    numbers = [name for name, value in head.get_params().items() if isinstance(value, float)]
    for _ in range(20):
        another = clone(head).set_params(**{name: random.uniform(0.01, 0.9) for name in numbers})
        expected = clone(another).fit(maps)
        another.fit(kept)
        np.testing.assert_array_equal(
            another.decision_function(kept), expected.decision_function(maps)
        )
        np.testing.assert_array_equal(another.mask(kept), expected.mask(maps))


def test_a_mask_that_is_kept_cannot_be_changed(head, maps, keep):
    mask = head.fit(maps).mask(keep(maps))
    with pytest.raises(ValueError, match="read-only"):
        mask[0, 0, 0] = True


def test_the_number_of_threads_changes_nothing(head, maps):
    threads = numba.get_num_threads()
    several = clone(head).fit(maps).decision_function(maps)
    try:
        numba.set_num_threads(1)
        alone = clone(head).fit(maps).decision_function(maps)
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(several, alone)


def test_constant_maps_are_decided(head):
    decision = head.fit(np.zeros((3, SIDE, SIDE))).decision_function(np.zeros((3, SIDE, SIDE)))
    assert np.isfinite(decision).all()


def test_predict_before_fit_is_refused(head, maps):
    for method in (head.predict, head.decision_function, head.mask):
        with pytest.raises(NotFittedError):
            method(maps)


def test_a_single_map_without_its_axis_is_refused_with_the_cure(head, maps):
    with pytest.raises(ValueError, match=r"error_maps\[np.newaxis\]"):
        head.fit(maps[0])


def test_nan_is_refused(head, maps):
    broken = maps.copy()
    broken[2, 3, 4] = np.nan
    with pytest.raises(ValueError, match=r"must be numbers in \[0, 1\], got from nan"):
        head.fit(broken)
    with pytest.raises(ValueError, match="nan"):
        head.fit(maps).predict(broken)


def test_maps_that_are_not_scaled_are_refused(head, maps):
    with pytest.raises(ValueError, match=r"in \[0, 1\], got from 0 to 255"):
        head.fit(np.where(maps > 0.5, 255, 0).astype(np.uint8))


def test_maps_of_another_shape_than_in_fit_are_refused(head, maps):
    with pytest.raises(ValueError, match=r"shape \(24, 24\) of those in fit, got \(12, 24\)"):
        head.fit(maps).predict(maps[:, ::2])


def test_a_parameter_out_of_its_range_is_named(head, maps):
    for name, value in head.get_params().items():
        for wrong in (-1, "many", np.nan):
            with pytest.raises(ValueError, match=f"^{name} must be .*, got .*"):
                head.set_params(**{name: wrong}).fit(maps)
        head.set_params(**{name: value})
