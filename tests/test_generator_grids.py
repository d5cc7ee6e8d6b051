"""Pictures of generated images: each in its place, in order, with what is too near in red."""

import numpy as np
import pytest
from PIL import ImageColor

from training.generator_grids import (
    ROW_LABEL,
    SMALL,
    TITLE,
    closest_pairs,
    interpolation_strip,
    neighbor_sheet,
    sample_sheet,
    training_sheet,
)
from training.grids import CAPTION, FRAME, GAP, RIGHT, TILE, WRONG


def greys(*values):
    """Images of one grey value each."""
    return np.stack([np.full((128, 128), value, dtype=np.uint8) for value in values])


def grey_at(page, left, top, side=SMALL):
    return page.getpixel((left + side // 2, top + side // 2))[0]


def test_a_sheet_holds_every_sample_once_in_order():
    page = sample_sheet(greys(*range(10, 110, 10)), "ten samples", columns=4)
    places = [
        (GAP + column * (SMALL + FRAME), TITLE + row * (SMALL + FRAME))
        for row in range(3)
        for column in range(4)
    ]
    assert [grey_at(page, *place) for place in places] == [*range(10, 110, 10), 255, 255]


def test_a_page_is_as_wide_as_its_title_needs():
    words = "a title that is much wider than the one small picture below it"
    narrow, wide = sample_sheet(greys(9), "a title"), sample_sheet(greys(9), words)
    assert narrow.width < 2 * SMALL < wide.width


def test_training_is_a_row_an_epoch_in_their_order():
    page = training_sheet({20: greys(200, 201), 5: greys(50, 51)}, "training")
    left = GAP + ROW_LABEL
    tops = TITLE, TITLE + SMALL + FRAME
    assert [grey_at(page, left, top) for top in tops] == [50, 200]
    assert [grey_at(page, left + SMALL + FRAME, top) for top in tops] == [51, 201]


def test_a_walk_goes_from_left_to_right():
    page = interpolation_strip(greys(10, 20, 30), "between two samples")
    found = [grey_at(page, GAP + number * (SMALL + FRAME), TITLE) for number in range(3)]
    assert found == [10, 20, 30]


def test_a_sample_stands_beside_its_neighbours_and_is_framed_in_red_where_too_near():
    page = neighbor_sheet(
        greys(10, 11),
        greys(20, 21),
        greys(30, 31),
        to_train=[0.1, 1.0],
        to_held_out=[1.0, 1.0],
        is_copy=[True, False],
        title="nearest neighbours",
    )
    width = 3 * SMALL + 4 * FRAME
    for number, color in enumerate((WRONG, RIGHT)):
        left, top = GAP + number * (width + GAP), TITLE + CAPTION
        assert page.getpixel((left + 1, top + 1)) == ImageColor.getrgb(color)
        inner = [left + FRAME + column * (SMALL + FRAME) for column in range(3)]
        assert [grey_at(page, x, top + FRAME) for x in inner] == [
            10 + number,
            20 + number,
            30 + number,
        ]


def test_the_closest_pairs_are_large_and_in_the_order_given():
    page = closest_pairs(greys(10, 11), greys(20, 21), distances=[0.1, 0.2], title="pairs")
    top = TITLE + CAPTION
    lefts = [GAP + number * (2 * TILE + FRAME + GAP) for number in range(2)]
    assert [grey_at(page, left, top, TILE) for left in lefts] == [10, 11]
    assert [grey_at(page, left + TILE + FRAME, top, TILE) for left in lefts] == [20, 21]


@pytest.mark.parametrize(
    "images", [np.zeros((0, 8, 8), np.uint8), np.zeros((2, 8, 8)), np.zeros((8, 8), np.uint8)]
)
def test_what_is_no_set_of_images_is_refused(images):
    with pytest.raises(ValueError, match=r"uint8 \(n, h, w\)"):
        sample_sheet(images, "none")


def test_a_training_without_epochs_has_no_picture():
    with pytest.raises(ValueError, match="at least one epoch"):
        training_sheet({}, "training")
