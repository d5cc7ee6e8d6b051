"""Which image files are meant: files, folders and patterns -> files, each once, in order.

Knows which names are those of images; not what is in the files.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from studies.study import StudyError
from training.data.folder import SUFFIXES

NIFTI = (".nii", ".nii.gz")
VOLUMES = (".dcm", *NIFTI)
DICOM_MARK = b"DICM"  # after 128 bytes; DICOM files often have no suffix


class Named(NamedTuple):
    """A file, and what it is called in answers."""

    path: Path
    name: str  # as it was given
    place: Path  # below the folder that all files have in common


def find_files(words: Sequence[str]) -> list[Named]:
    """The files of all words; a file that is named but gone is among them, to be reported."""
    found = {path.absolute(): path for word in words for path in _of_word(word)}
    if not found:
        raise StudyError(
            f"IMAGES names no images, got '{' '.join(words)}'. Give files, folders or patterns: "
            'make predict IMAGES="scan.png slices/ more/*.jpg".'
        )
    common = os.path.commonpath([path.parent for path in found])
    return [
        Named(path, str(path), absolute.relative_to(common)) for absolute, path in found.items()
    ]


def is_dicom(path: Path) -> bool:
    """Whether the file says of itself that it is DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == DICOM_MARK
    except OSError:
        return False


def _of_word(word: str) -> Iterator[Path]:
    path = Path(word)
    if not word.strip():
        return  # as a path it would be the working folder
    if path.is_dir():
        yield from (inner for inner in sorted(path.rglob("*")) if _is_image(inner, below=path))
    elif path.exists():
        yield path
    elif matches := _matching(path):
        for match in matches:
            yield from _of_word(str(match))
    elif (parts := _split(word)) != [word]:  # make gives all words as one
        for part in parts:
            yield from _of_word(part)
    else:
        yield path


def _matching(pattern: Path) -> list[Path]:
    if not set(str(pattern)) & set("*?["):
        return []
    below = str(pattern.relative_to(pattern.anchor))
    return sorted(Path(pattern.anchor).glob(below))


def _split(word: str) -> list[str]:
    try:
        return shlex.split(word)
    except ValueError:  # an apostrophe in a name is no quotation
        return word.split()


def _is_image(path: Path, *, below: Path) -> bool:
    if any(part.startswith(".") for part in path.relative_to(below).parts) or not path.is_file():
        return False
    name = path.name.lower()
    known = path.suffix.lower() in SUFFIXES or name.endswith(VOLUMES)
    return known or (not path.suffix and is_dicom(path))
