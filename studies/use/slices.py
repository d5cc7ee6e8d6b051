"""A file -> its slices in grey, whatever its format.

Owns what each damaged or strange file is answered with: one sentence. Which slices of a volume are
taken is the caller's wish; what a volume is, medical.py's.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from studies.use import medical
from studies.use.files import NIFTI, Named, is_dicom
from training.data import DataError
from training.data.folder import decode
from training.data.preprocess import Box, frame

MIDDLE, ALL = "middle", "all"

Which = str | int  # MIDDLE, ALL, or a slice's number counted from 0


class Slice(NamedTuple):
    """A slice that can be asked about."""

    name: str  # the file's, and `#12` where a volume has others
    place: Path  # and below the folder that all files have in common
    gray: np.ndarray  # uint8 (h, w), as it came
    frame: np.ndarray  # uint8 (128, 128), pre-processed
    box: Box  # where in `gray` the frame was cut


class Unread(NamedTuple):
    """A file or a slice that cannot be asked about, and why."""

    name: str
    reason: str


def read_slices(named: Named, which: Which, preprocess: str) -> list[Slice | Unread]:
    """The slices of a file that are asked for; those of a volume that show nothing are left out."""
    try:
        grays = _read(named.path, which)
    except DataError as error:
        return [Unread(named.name, str(error))]
    except FileNotFoundError:
        return [Unread(named.name, "there is no such file")]
    except OSError as error:
        return [Unread(named.name, f"the file cannot be read: {_words(error)}")]
    except Exception as error:  # readers of damaged files raise whatever they stumble over
        said = f"{type(error).__name__} {_words(error)}"
        return [Unread(named.name, f"the file cannot be read: {said}")]
    return [_framed(named, number, gray, preprocess) for number, gray in grays.items()]


def _read(path: Path, which: Which) -> dict[int | None, np.ndarray]:
    """Grey slices by their number; an image that is no volume has none."""
    if path.name.lower().endswith(NIFTI):
        return medical.read_nifti(path, which)
    if path.suffix.lower() == ".dcm" or is_dicom(path):
        return medical.read_dicom(path, which)
    return {None: decode(path.read_bytes())}


def _words(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text.strip().partition("\n")[0]


def _framed(named: Named, number: int | None, gray: np.ndarray, method: str) -> Slice | Unread:
    mark = "" if number is None else f"#{number}"
    try:
        return Slice(
            f"{named.name}{mark}", Path(f"{named.place}{mark}"), gray, *frame(gray, method)
        )
    except DataError as error:
        return Unread(f"{named.name}{mark}", str(error))
