"""A folder with `yes/` and `no/` -> a Dataset: read, checked, pre-processed, grouped, outlined.

Knows the folder's layout and what makes a file unusable; not where folders come from (sources.py)
nor how a Dataset is kept (store.py).
"""

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from training.data.copies import find_groups, thumbnail
from training.data.dataset import DataError, Dataset, digest
from training.data.outlines import Outlines, fill, read_outlines
from training.data.preprocess import SIDE, crop, frame, place, to_gray
from training.data.splits import check_classes

CLASS_FOLDERS = {"no": 0, "yes": 1}
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"}
MAX_BAD_SHARE = 0.1  # our choice: more bad files than this are not a few among many


class Listing(NamedTuple):
    """The image files of a folder, and what tells whether any of them changed."""

    folder: Path
    files: list[str]  # "no/a.jpg", relative to the folder, sorted
    stamps: list[tuple[int, int]]  # size and time of the last change in ns, in the files' order


@dataclass(frozen=True)
class _Slice:
    """What one usable file gave."""

    row: dict[str, object]  # of the manifest, but for the group
    image: np.ndarray  # uint8 (128, 128)
    thumbnail: np.ndarray  # uint8 (32, 32), for the search of copies
    mask: np.ndarray | None  # bool (128, 128)


def list_images(folder: Path) -> Listing:
    """Find the images; other files and hidden ones are none of ours."""
    folder = folder.resolve()
    files, stamps = [], []
    for name in CLASS_FOLDERS:
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder} holds no folder {name}/. "
                "Put slices with a tumour into yes/ and those without into no/."
            )
        for path in sorted((folder / name).iterdir()):
            if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
                continue
            if not path.resolve().is_relative_to(folder):
                raise DataError(f"{path} leads out of {folder}; put a copy of the file there.")
            if path.is_file():
                files.append(f"{name}/{path.name}")
                stamps.append((path.stat().st_size, path.stat().st_mtime_ns))
        if not any(file.startswith(f"{name}/") for file in files):
            raise DataError(f"{folder / name} holds no images; add {' '.join(sorted(SUFFIXES))}.")
    return Listing(folder, files, stamps)


def make_dataset(listing: Listing, *, name: str, preprocess: str) -> Dataset:
    """Read and pre-process every image; the few that cannot be used are listed and left out."""
    read = partial(_read, listing.folder, read_outlines(listing.folder), preprocess)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(read, listing.files))
    slices, left_out = _sort_out(listing, results)
    labels = np.array([s.row["label"] for s in slices], dtype=np.int64)
    groups = find_groups(np.stack([s.thumbnail for s in slices]), labels)
    check_classes(labels, groups)
    images = np.stack([s.image for s in slices])
    return Dataset(
        name=name,
        images=images,
        labels=labels,
        groups=groups,
        masks=np.stack([_no_mask() if s.mask is None else s.mask for s in slices]),
        has_mask=np.array([s.mask is not None for s in slices]),
        manifest=pd.DataFrame([s.row for s in slices]).assign(group=groups),
        left_out=left_out,
        preprocess=preprocess,
        digest=digest(images, labels, groups, preprocess=preprocess),
    )


def _read(folder: Path, outlines: Outlines, method: str, file: str) -> _Slice | str:
    """One file's slice, or the reason why it cannot be used."""
    try:
        content = (folder / file).read_bytes()
        gray = decode(content)
        framed = frame(gray, method)
        head = framed.box if method == "head" else frame(gray, "head").box
    except (DataError, OSError) as error:
        return str(error)
    box = framed.box
    class_folder, name = file.split("/")
    outline = outlines.get(name) if class_folder == "yes" else None
    row = {
        "file": file,
        "label": CLASS_FOLDERS[class_folder],
        "sha256": hashlib.sha256(content).hexdigest(),
        "width": gray.shape[1],
        "height": gray.shape[0],
        "box_left": box.left,
        "box_top": box.top,
        "box_width": box.width,
        "box_height": box.height,
        "has_mask": outline is not None,
    }
    mask = None if outline is None else place(fill(outline, gray.shape), box) > 127
    return _Slice(row, framed.image, thumbnail(crop(gray, head)), mask)


def decode(content: bytes) -> np.ndarray:
    """The bytes of an image file -> uint8 (h, w); DataError where they are none."""
    if not content:
        raise DataError("the file is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            return to_gray(image)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError("the file is no image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read: {error}") from error


def _sort_out(listing: Listing, results: list[_Slice | str]) -> tuple[list[_Slice], pd.DataFrame]:
    """Keep what is usable, tell the rest with its reason; DataError where that is too much."""
    contradictory = _contradictory(results)
    slices, left_out = [], []
    for file, result in zip(listing.files, results, strict=True):
        if isinstance(result, str):
            left_out.append((file, result))
        elif result.row["sha256"] in contradictory:
            left_out.append((file, "the same file is in yes/ and in no/"))
        else:
            slices.append(result)
    if len(left_out) > MAX_BAD_SHARE * len(results):
        shown = "; ".join(f"{file}: {reason}" for file, reason in left_out[:5])
        raise DataError(
            f"{len(left_out)} of {len(results)} images in {listing.folder} cannot be used, more "
            f"than {MAX_BAD_SHARE:.0%}; replace or remove them ({shown}, ...)."
        )
    return slices, pd.DataFrame(left_out, columns=["file", "reason"], dtype=str)


def _contradictory(results: list[_Slice | str]) -> set[str]:
    """Checksums of the files that are in both classes."""
    by_class: dict[int, set[str]] = {0: set(), 1: set()}
    for result in results:
        if isinstance(result, _Slice):
            by_class[result.row["label"]].add(result.row["sha256"])
    return by_class[0] & by_class[1]


def _no_mask() -> np.ndarray:
    return np.zeros((SIDE, SIDE), dtype=bool)
