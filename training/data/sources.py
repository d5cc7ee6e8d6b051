"""`load`: from what the user asked for (`DATA=`) to a Dataset, prepared once and kept.

Knows which sources there are and in which order they are tried. How a folder becomes a Dataset is
folder.py's, where Br35H comes from br35h.py's, what the phantom looks like phantom.py's.
"""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from training.cache import DISK_FULL, Cache, CacheError, code_digest, make_key
from training.data import br35h, phantom, store
from training.data.dataset import DataError, Dataset
from training.data.folder import CLASS_FOLDERS, Listing, list_images, make_dataset
from training.data.synthetic import as_dataset, is_synthetic, read_synthetic

# What is kept was made by these modules and is made again when one of them changes.
CODE = ("copies", "folder", "head", "outlines", "preprocess", "store")


class _Source(NamedTuple):
    name: str
    folder: Path
    title: str  # how the first line names it
    remark: str = ""  # what the first line adds


def load(
    data: str = "auto",
    *,
    preprocess: str = "head",
    root: Path = Path("var"),
    say: Callable[[str], None] = print,
) -> Dataset:
    """Find, prepare and keep below `root` the data that `data` names.

    "br35h" is found in the environment's BR35H_DIR or in `root`, else downloaded. "auto" is the
    same, but takes the phantom set where there is no network. "phantom" is that set, anything else
    a folder with `yes/` and `no/`; one that `make generate` wrote is taken as it is. The first line
    said names the data.
    """
    try:
        source = _find(data, root)
        listing = list_images(source.folder)
        say(f"{source.title}: {len(listing.files)} images{source.remark}")
        dataset = _prepared(listing, source.name, preprocess, root)
    except CacheError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise DataError(
            f"The disk is full: {root / 'data'} could not be written; free some space."
        ) from error
    say(_summary(dataset))
    return dataset


def source_folder(data: str, root: Path) -> Path:
    """Where the files lie that `load` reads for this `data`; raises as it does."""
    return _find(data, root).folder


def _find(data: str, root: Path) -> _Source:
    if data == "phantom":
        return _phantom(root, "")
    if data == "br35h":
        return _br35h(root)
    if data == "auto":
        try:
            return _br35h(root)
        except br35h.NoNetworkError:
            return _phantom(root, "no Br35H was found and the network did not answer")
    if not Path(data).is_dir():
        raise DataError(
            f"DATA must be auto, br35h, phantom or a folder with yes/ and no/, got {data!r}."
        )
    return _folder(Path(data).resolve())


def _br35h(root: Path) -> _Source:
    named = os.environ.get("BR35H_DIR")
    folder = Path(named) if named else root / "data" / "br35h"
    if named and not all((folder / name).is_dir() for name in CLASS_FOLDERS):
        raise DataError(
            f"BR35H_DIR names {folder}, which has no yes/ and no/; "
            "correct it, or unset it to have the set downloaded."
        )
    if not folder.is_dir():
        try:
            br35h.download(folder, url=br35h.URL)
        except br35h.NoNetworkError as error:
            raise br35h.NoNetworkError(
                f"Br35H is not in {folder} and cannot be downloaded: {error}. Set BR35H_DIR to a "
                "folder with its yes/ and no/, or use DATA=phantom."
            ) from error
    return _Source("br35h", folder, "Br35H", f" in {folder}")


def _phantom(root: Path, reason: str) -> _Source:
    key = make_key(code=code_digest(phantom))
    folder = Cache(root / "data" / "phantom").get_or_make(key, phantom.write)
    because = f", because {reason}" if reason else ""
    remark = f"{because}; numbers on it say nothing about patients"
    return _Source("phantom", folder, "phantom set", remark)


def _folder(folder: Path) -> _Source:
    if not is_synthetic(folder):
        return _Source(folder.name, folder, folder.name, f" in {folder}")
    for name in CLASS_FOLDERS:
        if not (folder / name).is_dir():
            raise DataError(
                f"{folder} holds no synthetic images for {name}/, and a data set needs both "
                "classes. `make generate` with FOR=classifier makes both."
            )
    return _Source(folder.name, folder, folder.name, f" in {folder}, synthetic: taken as they are")


def _prepared(listing: Listing, name: str, preprocess: str, root: Path) -> Dataset:
    """The Dataset of a listing, made at most once as long as no file and no code changes."""
    modules = (*CODE, "synthetic") if is_synthetic(listing.folder) else CODE
    code = code_digest(*(import_module(f"training.data.{module}") for module in modules))
    key = make_key(
        folder=str(listing.folder),
        files=listing.files,
        stamps=listing.stamps,
        name=name,
        preprocess=preprocess,
        code=code,
    )
    kept = Cache(root / "data" / "prepared").get_or_make(
        key, lambda entry: store.save(_make(listing, name, preprocess), entry)
    )
    return store.read(kept)


def _make(listing: Listing, name: str, preprocess: str) -> Dataset:
    if is_synthetic(listing.folder):
        return as_dataset(read_synthetic(listing.folder), name=name, preprocess=preprocess)
    return make_dataset(listing, name=name, preprocess=preprocess)


def _summary(dataset: Dataset) -> str:
    n_groups = len(set(dataset.groups.tolist()))
    summary = (
        f"{(dataset.labels == 0).sum()} without and {(dataset.labels == 1).sum()} with a tumour, "
        f"{n_groups} groups of near-copies, {dataset.has_mask.sum()} outlined"
    )
    if dataset.left_out.empty:
        return summary
    bad = dataset.left_out.head(5)
    shown = "; ".join(
        f"{file}: {reason}" for file, reason in zip(bad.file, bad.reason, strict=True)
    )
    more = ", ..." if len(dataset.left_out) > len(bad) else ""
    return f"{summary}; {len(dataset.left_out)} left out ({shown}{more})"
