"""Outlines: shapes of the annotator's file as filled pixels."""

import json

import numpy as np
import pytest

from training.data.outlines import OUTLINES_FILE, fill, read_outlines


def filled(tmp_path, *shapes):
    regions = [{"shape_attributes": shape} for shape in shapes]
    path = tmp_path / OUTLINES_FILE
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"y0.jpg1": {"filename": "y0.jpg", "regions": regions}}))
    return fill(read_outlines(tmp_path)["y0.jpg"], (100, 120))


def test_a_polygon_is_filled_with_its_border(tmp_path):
    mask = filled(
        tmp_path,
        {"name": "polygon", "all_points_x": [10, 19, 19, 10], "all_points_y": [5, 5, 8, 8]},
    )
    expected = np.zeros((100, 120), np.uint8)
    expected[5:9, 10:20] = 255
    assert np.array_equal(mask, expected)


def test_a_circle_has_its_area_and_middle(tmp_path):
    mask = filled(tmp_path, {"name": "circle", "cx": 60, "cy": 40, "r": 20}) > 0
    assert mask.sum() == pytest.approx(np.pi * 20**2, rel=0.06)
    assert np.argwhere(mask).mean(axis=0) == pytest.approx([40, 60], abs=0.5)


def test_an_ellipse_turns_clockwise_with_theta_as_the_image_is_seen(tmp_path):
    shape = {"name": "ellipse", "cx": 60, "cy": 50, "rx": 30, "ry": 5, "theta": np.pi / 4}
    mask = filled(tmp_path, shape)
    assert mask[65, 75] and mask[35, 45]  # right and down, left and up
    assert not mask[35, 75] and not mask[65, 45]


def test_where_two_shapes_overlap_both_count(tmp_path):
    one, two = ({"name": "circle", "cx": x, "cy": 50, "r": 20} for x in (50, 60))
    assert filled(tmp_path, one, two)[50, 55]


def test_a_folder_without_outlines_has_none(tmp_path):
    assert read_outlines(tmp_path) == {}
