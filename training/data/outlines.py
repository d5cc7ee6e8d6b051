"""Tumour outlines in the VGG annotator's format, as Br35H's author published them.

Knows the JSON's layout and how to fill its shapes; not how slices are pre-processed.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from training.data.dataset import DataError

OUTLINES_FILE = Path("Br35H-Mask-RCNN", "annotations_all.json")

Outlines = dict[str, list[np.ndarray]]  # a file's name -> its shapes, each int32 (k, 2)


def read_outlines(folder: Path) -> Outlines:
    """The shapes of each outlined file of `yes/`; nothing where the folder has no outlines."""
    path = folder / OUTLINES_FILE
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text()).values()
        return {
            entry["filename"]: [_points(region["shape_attributes"]) for region in entry["regions"]]
            for entry in entries
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} does not hold outlines as the VGG annotator writes them ({error!r}); "
            "restore it or remove it."
        ) from error


def fill(shapes: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Fill the shapes: uint8 (h, w), 255 inside and 0 outside."""
    mask = np.zeros(size, dtype=np.uint8)
    for shape in shapes:  # one by one: together, where two overlap would count as outside
        cv2.fillPoly(mask, [shape], 255)
    return mask


def _points(shape: dict) -> np.ndarray:
    """A polygon, ellipse or circle as its corners: x and y in pixels of the original."""
    if shape["name"] == "polygon":
        points = np.column_stack([shape["all_points_x"], shape["all_points_y"]])
    else:
        radii = (shape["r"],) * 2 if shape["name"] == "circle" else (shape["rx"], shape["ry"])
        turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        points = np.column_stack([np.cos(turn), np.sin(turn)]) * radii
        cos, sin = np.cos(shape.get("theta", 0)), np.sin(shape.get("theta", 0))
        points = points @ [[cos, sin], [-sin, cos]] + [shape["cx"], shape["cy"]]
    return np.round(points).astype(np.int32)
