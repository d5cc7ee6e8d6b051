"""A folder of synthetic slices: written whole or not at all, read only as it was written.

Owns the layout (`yes/`, `no/`, manifest.json) and what makes such a folder unusable. Knows neither
networks nor how training uses the images (join.py).
"""

import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock
from PIL import Image

from training.data.dataset import DataError, Dataset, digest
from training.data.folder import CLASS_FOLDERS, SUFFIXES
from training.data.preprocess import SIDE
from training.data.splits import check_classes

MANIFEST = "manifest.json"
CURE = "`make generate` writes a whole set."


@dataclass(frozen=True)
class Origin:
    """How a set came to be. Classes are named by their folders, "yes" and "no"."""

    generator: str
    source: str  # where the hyperparameters are from, in words
    hyperparameters: dict[str, dict[str, object]]  # of each class's network
    seed: int
    data: str  # the real images: their name, digest and pre-processing
    data_digest: str
    preprocess: str
    protocol: str  # of the split whose training images the networks saw
    scheme: str
    seen: dict[str, list[str]]  # sha256 of each file that a class's network learned from
    measures: dict[str, dict[str, float]]  # how far each class is from real images


@dataclass(frozen=True)
class SyntheticSet:
    """Generated slices, framed as real ones are after pre-processing; row i is the same image."""

    name: str  # the folder's
    folder: Path
    origin: Origin
    files: list[str]  # "no/00001.png", relative to the folder, sorted
    sha256: list[str]
    images: np.ndarray = field(repr=False)  # uint8 (n, 128, 128)
    labels: np.ndarray = field(repr=False)  # int64 (n,)

    @property
    def digest(self) -> str:
        """Fingerprint of images and labels: 32 hex characters."""
        own_groups = np.arange(len(self.labels))
        return digest(self.images, self.labels, own_groups, preprocess=self.origin.preprocess)


def is_synthetic(folder: Path) -> bool:
    """Whether a folder says that it holds a synthetic set."""
    return (folder / MANIFEST).is_file()


def write_synthetic(
    folder: Path, images: Mapping[str, Iterable[np.ndarray]], origin: Origin
) -> SyntheticSet:
    """Write batches of uint8 (k, 128, 128) for each class folder, in place of what was there.

    `folder` changes once everything is written; what fails or is interrupted leaves it as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f"{folder.name}.tmp")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            files = {}
            for name, batches in images.items():
                files |= _write_class(unfinished, name, batches)
            manifest = {"origin": asdict(origin), "files": files}
            (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return read_synthetic(folder)


def read_synthetic(folder: Path) -> SyntheticSet:
    """Read a set, or raise DataError where it is not what was written."""
    folder = folder.resolve()
    origin, files = _read_manifest(folder)
    found = {
        str(path.relative_to(folder))
        for name in CLASS_FOLDERS
        for path in (folder / name).glob("*")
        if path.suffix.lower() in SUFFIXES
    }
    if found != set(files):
        raise DataError(
            f"{folder} holds other images than its {MANIFEST} names: {len(set(files) - found)} "
            f"are missing, {len(found - set(files))} are unknown. {CURE}"
        )
    if not files:
        raise DataError(f"{folder} holds no images. {CURE}")
    names = sorted(files)
    return SyntheticSet(
        name=folder.name,
        folder=folder,
        origin=origin,
        files=names,
        sha256=[files[name] for name in names],
        images=np.stack([_read_image(folder, name, files[name]) for name in names]),
        labels=np.array([CLASS_FOLDERS[name.split("/")[0]] for name in names], dtype=np.int64),
    )


def as_dataset(synthetic: SyntheticSet, *, name: str, preprocess: str) -> Dataset:
    """The set as images like any others: not framed anew, each a group of its own."""
    check_preprocess(synthetic, preprocess)
    groups = np.arange(len(synthetic.labels))
    check_classes(synthetic.labels, groups)
    return Dataset(
        name=name,
        images=synthetic.images,
        labels=synthetic.labels,
        groups=groups,
        masks=np.zeros(synthetic.images.shape, dtype=bool),
        has_mask=np.zeros(len(groups), dtype=bool),
        manifest=as_rows(synthetic, synthetic.files, groups),
        left_out=pd.DataFrame(columns=["file", "reason"], dtype=str),
        preprocess=preprocess,
        digest=synthetic.digest,
    )


def as_rows(synthetic: SyntheticSet, files: list[str], groups: np.ndarray) -> pd.DataFrame:
    """The set's rows of a Dataset's manifest, its images called `files`."""
    return pd.DataFrame(
        {
            "file": files,
            "label": synthetic.labels,
            "sha256": synthetic.sha256,
            "width": SIDE,
            "height": SIDE,
            "box_left": 0,
            "box_top": 0,
            "box_width": SIDE,
            "box_height": SIDE,
            "has_mask": False,
            "group": groups,
        }
    )


def check_preprocess(synthetic: SyntheticSet, preprocess: str) -> None:
    """Synthetic slices are framed as those that their networks learned from, and stay so."""
    made_from = synthetic.origin.preprocess
    if made_from != preprocess:
        raise DataError(
            f"{synthetic.folder} was made from images of PREPROCESS={made_from}, and PREPROCESS is "
            f"{preprocess} here. Say PREPROCESS={made_from}, or make another set with "
            "`make generate`."
        )


def _write_class(folder: Path, name: str, batches: Iterable[np.ndarray]) -> dict[str, str]:
    """Write one class's images as PNG; their checksums by file."""
    (folder / name).mkdir(parents=True)
    checksums: dict[str, str] = {}
    for images in batches:
        for image in images:
            content = io.BytesIO()
            Image.fromarray(image).save(content, format="PNG")
            file = f"{name}/{len(checksums):05}.png"
            (folder / file).write_bytes(content.getvalue())
            checksums[file] = hashlib.sha256(content.getvalue()).hexdigest()
    return checksums


def _read_manifest(folder: Path) -> tuple[Origin, dict[str, str]]:
    if not is_synthetic(folder):
        raise DataError(
            f"{folder} holds no {MANIFEST}, so nobody knows which images its generator saw. {CURE}"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return Origin(**manifest["origin"]), dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder / MANIFEST} cannot be read ({error!r}). {CURE}") from error


def _read_image(folder: Path, file: str, checksum: str) -> np.ndarray:
    content = (folder / file).read_bytes()
    if hashlib.sha256(content).hexdigest() != checksum:
        raise DataError(f"{folder / file} has changed since it was written. {CURE}")
    with Image.open(io.BytesIO(content)) as image:
        if image.mode != "L" or image.size != (SIDE, SIDE):
            raise DataError(
                f"A synthetic image must be grey, {SIDE} x {SIDE}; {folder / file} is "
                f"{image.mode}, {image.width} x {image.height}. {CURE}"
            )
        return np.asarray(image)
