"""Grids show a fair sample, each class on its side, and mark what the head got wrong."""

import numpy as np
import pytest
from PIL import ImageColor

from training import grids
from training.grids import CAPTION, FRAME, GAP, HEADER, TILE, choose_examples, sample_grid

CARD_WIDTH = 4 * TILE + 5 * FRAME
CARD_HEIGHT = TILE + 2 * FRAME + CAPTION


def draw(labels, predicted):
    """A grid of grey images whose error maps are half dark, half bright."""
    n = len(labels)
    images = np.full((n, 32, 32), 100, dtype=np.uint8)
    error_maps = np.zeros((n, 32, 32), dtype=np.float32)
    error_maps[:, :, 16:] = 1
    x_hat = np.full((n, 32, 32), 0.5, dtype=np.float32)
    scores = np.linspace(-1, 1, n)
    return sample_grid(
        images, x_hat, error_maps, error_maps > 0.5, labels, predicted, scores=scores
    )


def frame_color(grid, row, column):
    """The colour of the frame's upper left corner."""
    left = GAP + column * (CARD_WIDTH + GAP)
    top = HEADER + GAP + row * (CARD_HEIGHT + GAP)
    return grid.getpixel((left + 1, top + 1))


def test_examples_are_half_of_each_class_and_spread_over_the_scores():
    labels = np.repeat([1, 0], [80, 20])
    scores = np.arange(100.0)
    chosen = choose_examples(labels, scores, seed=1, n=8)
    assert labels[chosen].tolist() == [0] * 4 + [1] * 4
    assert ((chosen[:4] - 80) // 5).tolist() == [0, 1, 2, 3]  # one of each quarter of 20
    assert (chosen[4:] // 20).tolist() == [0, 1, 2, 3]  # one of each quarter of 80


def test_the_same_seed_chooses_the_same_examples():
    labels, scores = np.repeat([0, 1], 50), np.random.default_rng(0).normal(size=100)
    chosen = choose_examples(labels, scores, seed=4)
    assert chosen.tolist() == choose_examples(labels, scores, seed=4).tolist()
    assert chosen.tolist() != choose_examples(labels, scores, seed=5).tolist()


def test_a_small_class_gives_what_it_has():
    assert choose_examples([0, 1, 1, 1, 1, 1], np.zeros(6), n=8).tolist()[0] == 0
    assert len(choose_examples([0, 1, 1, 1, 1, 1], np.zeros(6), n=8)) == 5


def test_wrong_answers_have_a_red_frame_and_each_class_its_side():
    grid = draw(labels=[1, 0, 0, 1], predicted=[1, 0, 1, 0])
    right, wrong = ImageColor.getrgb(grids.RIGHT), ImageColor.getrgb(grids.WRONG)
    assert [frame_color(grid, row, 0) for row in (0, 1)] == [right, wrong]  # healthy: 0 then 1
    assert [frame_color(grid, row, 1) for row in (0, 1)] == [right, wrong]  # tumour: 1 then 0
    assert grid.size == (2 * CARD_WIDTH + 3 * GAP, HEADER + 2 * CARD_HEIGHT + 3 * GAP)


def test_the_mask_colours_only_the_pixels_called_tumour():
    grid = draw(labels=[0, 1], predicted=[0, 1])
    middle = HEADER + GAP + FRAME + TILE // 2
    last_tile = GAP + 4 * FRAME + 3 * TILE
    assert grid.getpixel((last_tile + TILE // 4, middle)) == (100, 100, 100)
    red, _, blue = grid.getpixel((last_tile + 3 * TILE // 4, middle))
    assert blue > red


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_leaves_the_other_side_blank(label):
    grid = draw(labels=[label], predicted=[label])
    assert frame_color(grid, 0, label) == ImageColor.getrgb(grids.RIGHT)
    assert frame_color(grid, 0, 1 - label) == (255, 255, 255)
