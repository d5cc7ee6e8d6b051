"""Frames find their way back into the original, and pictures show what an answer rests on."""

from pathlib import Path

import numpy as np
import pytest
from registered import some_slices, tiny_classifier, tiny_detector

from studies.use.answers import Answer
from studies.use.overlay import LARGEST, SMALLEST, draw_overlay, find_region
from studies.use.slices import Slice
from training.data.preprocess import METHODS, Box, frame, place, restore
from training.predictor import framed


def head_in(height: int, width: int, *, at: tuple[int, int], radius: int) -> np.ndarray:
    """A grey disc on black, brighter to the right."""
    y, x = np.mgrid[:height, :width]
    inside = (y - at[0]) ** 2 + (x - at[1]) ** 2 < radius**2
    return np.where(inside, 90 + x * 100 // width, 0).astype(np.uint8)


def as_slice(gray: np.ndarray, method: str = "head") -> Slice:
    return Slice("slice", Path("slice"), gray, *frame(gray, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(300, 400), (90, 70), (64, 64)])
def test_what_is_marked_in_the_original_comes_back_where_it_was(method, size):
    height, width = size
    gray = head_in(*size, at=(height // 2, width // 3), radius=min(size) // 3)
    box = frame(gray, method).box
    marked = np.zeros(size, np.float32)
    marked[height // 2 - 8 : height // 2 + 4, width // 3 - 4 : width // 3 + 10] = 1
    again = restore(place(marked, box), box, size) > 0.5
    both = (again & (marked > 0)).sum() / (again | (marked > 0)).sum()
    assert again.shape == size and both > 0.75


def test_what_lies_outside_the_box_is_zero():
    box = Box(left=40, top=20, width=60, height=80, share=0.9)
    image = restore(np.ones((128, 128), np.float32), box, (150, 200))
    assert image[20:100, 40:100].all() and image.sum() == 60 * 80


def test_a_box_that_reaches_over_the_edge_is_cut_there():
    box = Box(left=150, top=0, width=60, height=60, share=0.9)
    assert restore(np.ones((128, 128), np.float32), box, (100, 200))[:60, 150:].all()


def test_a_region_is_given_in_pixels_of_the_original():
    slice_ = as_slice(head_in(400, 600, at=(150, 450), radius=115))  # a frame pixel is two
    map_, mask = np.zeros((128, 128), np.float32), np.zeros((128, 128), bool)
    mask[60:70, 80:90], map_[66, 85] = True, 1  # the frame's middle (64, 64) is the disc's
    left, top, width, height, peak = find_region(slice_, map_, mask)
    assert (left, top) == (pytest.approx(450 + 32, abs=4), pytest.approx(150 - 8, abs=4))
    assert (width, height) == (pytest.approx(20, abs=3), pytest.approx(20, abs=3))
    assert peak == (pytest.approx(450 + 43, abs=4), pytest.approx(150 + 5, abs=4))
    assert find_region(slice_, map_, np.zeros_like(mask)) is None


def drawn(slice_: Slice, label: int) -> np.ndarray:
    map_, mask = np.zeros((128, 128), np.float32), np.zeros((128, 128), bool)
    mask[50:80, 50:80], map_[50:80, 50:80] = True, 0.9
    region = find_region(slice_, map_, mask) if label else None
    answer = Answer("slice.png", label, 0.1, 5.0, region)
    return np.asarray(draw_overlay(slice_, map_, mask, answer, map_name="map", said="score"))


def is_yellow(picture: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(picture.astype(int), 2, 0)
    return (red > 220) & (green > 170) & (blue < 120) & (red - blue > 120)


@pytest.mark.parametrize(("label", "outlined"), [(1, True), (0, False)])
def test_a_region_is_outlined_where_a_tumour_is_called_and_nowhere_else(label, outlined):
    slice_ = as_slice(head_in(400, 500, at=(200, 250), radius=150))
    left_picture = drawn(slice_, label)[30:430, 12:512]
    assert is_yellow(left_picture).any() == outlined


@pytest.mark.parametrize(
    ("size", "longer"), [((60, 50), 60 * 7), ((500, 400), 500), ((3000, 2000), LARGEST)]
)
def test_small_images_are_enlarged_and_large_ones_made_smaller(size, longer):
    slice_ = as_slice(head_in(*size, at=(size[0] // 2, size[1] // 2), radius=min(size) // 3))
    assert drawn(slice_, 1).shape[0] == longer + 94
    assert longer >= min(SMALLEST, size[0])


@pytest.mark.parametrize("make", [tiny_detector, tiny_classifier])
def test_an_explanation_holds_the_answers_that_predict_gives(make):
    predictor, images = make(), some_slices(4)
    explained = predictor.explain(framed(images, "head"))
    assert explained.answers.equals(predictor.predict(images))
    assert explained.maps.shape == explained.masks.shape == (4, 128, 128)
    assert explained.maps.min() >= 0 and explained.maps.max() <= 1
    assert explained.masks.dtype == bool


def test_a_detectors_mask_is_its_heads():
    predictor = tiny_detector()
    explained = predictor.explain(framed(some_slices(2), "head"))
    assert np.array_equal(explained.masks, explained.maps >= np.float32(predictor.head.threshold))


def test_margins_are_in_the_unit_that_they_are_said_to_be_in():
    detector, classifier = tiny_detector(), tiny_classifier()
    threshold = detector.head.threshold
    assert detector.margins(np.array([threshold / 4, -threshold])) == pytest.approx([25, -100])
    assert classifier.margins(np.array([0.0, np.log(9), -np.log(9)])) == pytest.approx([0, 40, -40])


def test_there_is_no_share_of_a_threshold_of_zero():
    detector = tiny_detector()
    detector.head.threshold = 0.0
    assert np.isnan(detector.margins(np.array([0.1]))).all()
