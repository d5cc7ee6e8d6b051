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


def tile(grid, position, *, tiles=4, column=1):
    """A tile of the first card on one side, as an array (TILE, TILE, 3)."""
    width = tiles * TILE + (tiles + 1) * FRAME
    left = GAP + column * (width + GAP) + FRAME + position * (TILE + FRAME)
    top = HEADER + GAP + FRAME
    return np.asarray(grid)[top : top + TILE, left : left + TILE]


def draw_tumor(*, reconstructions, outline=True, peak=1.0):
    """One tumour image with a square outline at the upper left and one largest error."""
    image = np.full((1, 32, 32), 100, dtype=np.uint8)
    error_map = np.zeros((1, 32, 32), dtype=np.float32)
    error_map[0, 20, 8] = peak
    outlines = np.zeros((1, 32, 32), dtype=bool)
    outlines[0, 4:12, 4:12] = outline
    return sample_grid(
        image, reconstructions, error_map, outlines & False, [1], [1], scores=[1], outlines=outlines
    )


def has_color(picture, color):
    return (picture == ImageColor.getrgb(color)).all(axis=-1).any()


def test_the_outline_is_drawn_on_the_original_and_on_what_is_called_tumour():
    x_hat = np.full((1, 32, 32), 0.5, dtype=np.float32)
    grid = draw_tumor(reconstructions=x_hat)
    drawn = [has_color(tile(grid, position), grids.OUTLINE) for position in range(4)]
    assert drawn == [True, False, False, True]
    scale = TILE // 32
    inside = tile(grid, 0)[5 * scale + 3 : 11 * scale - 3, 5 * scale + 3 : 11 * scale - 3]
    assert (inside == 100).all()  # a line, not an area
    unknown = draw_tumor(reconstructions=x_hat, outline=False)
    assert not has_color(np.asarray(unknown), grids.OUTLINE)  # in the key neither


def test_a_cross_marks_the_largest_error_and_a_constant_map_has_none():
    grid = draw_tumor(reconstructions=None)
    rows, columns = np.nonzero(
        (tile(grid, 1, tiles=3) == ImageColor.getrgb(grids.CROSS)).all(axis=-1)
    )
    scale = TILE / 32
    assert np.mean([rows.min(), rows.max()]) == pytest.approx(20.5 * scale, abs=1)
    assert np.mean([columns.min(), columns.max()]) == pytest.approx(8.5 * scale, abs=1)
    constant = draw_tumor(reconstructions=None, peak=0.0)
    assert not has_color(tile(constant, 1, tiles=3), grids.CROSS)


def test_without_reconstructions_a_card_has_three_tiles():
    grid = draw_tumor(reconstructions=None)
    assert grid.width == 2 * (3 * TILE + 4 * FRAME) + 3 * GAP
