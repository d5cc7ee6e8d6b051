"""What lies below VAR_DIR and may go: entries of the cache, what a study has published, orphans.

Owns the rule of the cache. Looks and measures; removes nothing.

Of the cache, weights stay that a trial with files stands on, and those of trials whose files go,
go too. What no trial names (features of frozen networks, networks that judge, control or generate)
can be made again in minutes: it stays until nobody has asked for it for a month. Floors and the
like are small and stay.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow_server.tracking import CLOSED_TAG
from mlflow_server.upkeep import Holdings, folder_size
from studies.record import MODEL
from studies.settings import slug
from studies.upkeep.needs import Needs, Search
from training.kept_fit import WEIGHTS

KEY = re.compile(r"[0-9a-f]{32}")
MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
SMALL = 1 << 20  # bytes; our choice
A_MONTH = 30 * 24 * 60 * 60  # seconds; our choice
WINNER = "winner"  # what was registered, once more


class Folder(NamedTuple):
    """A folder and its bytes."""

    path: Path
    size: int


def cache_entries(root: Path, needs: Needs, *, unasked: float) -> tuple[list[Folder], list[Folder]]:
    """The entries that stay and those that may go; `unasked` is for how many seconds nobody has
    asked for one that no trial names."""
    stay, go = [], []
    for path in sorted((root / "cache").glob("*")):
        key = path.stem
        if path.is_dir() and KEY.fullmatch(key):
            entry = Folder(path, folder_size(path))
            (go if may_go(entry, needs, unasked) else stay).append(entry)
    return stay, go


def may_go(entry: Folder, needs: Needs, unasked: float) -> bool:
    """The rule of the cache; while a study runs, all of it stays."""
    if needs.running:
        return False
    if entry.path.suffix == ".tmp":  # of a killed process: one that lives holds its lock
        return True
    key = entry.path.name
    if key in needs.weights or entry.size < SMALL:
        return False
    if key in needs.known_weights and (entry.path / WEIGHTS).exists():
        return True
    return time.time() - entry.path.stat().st_mtime >= unasked


def published_folders(
    root: Path, holdings: Holdings, searches: dict[str, Search], needs: Needs
) -> list[Folder]:
    """Trials' folders that a killed process left behind after their runs were written, and copies
    of registered winners."""
    done = {
        (slug(holdings.experiments[run.experiment].name), run.tags["trial"])
        for run in holdings.runs.values()
        if "trial" in run.tags and run.status != "RUNNING" and CLOSED_TAG not in run.tags
    }
    quiet = [slug(name) for name in searches if name not in needs.running]
    folders = [
        path
        for name in quiet
        for path in sorted((root / "studies" / name / "trials").glob("*"))
        if (name, path.name) in done and not (path / MODEL).exists()  # else `make sync` logs it
    ]
    folders += [path for name in quiet if (path := root / "studies" / name / WINNER).is_dir()]
    return [Folder(path, folder_size(path)) for path in folders]


def artifact_folders(artifacts: Path) -> dict[str, Path]:
    """The folders of runs and logged models below MLflow's files, by id."""
    found = {path.name: path for path in artifacts.glob("*/*") if KEY.fullmatch(path.name)}
    models = artifacts.glob("*/models/*")
    return found | {path.name: path for path in models if MODEL_ID.fullmatch(path.name)}


def orphans(
    folders: dict[str, Path], holdings: Holdings, remembered: set[str]
) -> tuple[list[Folder], list[Folder]]:
    """Folders of runs and models whose records are gone: those that this database has a trace of,
    and those that it has never heard of, which may be another database's.

    `folders` must have been listed before the record: what is new in it then is no orphan.
    """
    lost = [path for identity, path in _unrecorded(folders, holdings)]
    known = [Folder(path, folder_size(path)) for path in lost if path.name in remembered]
    strange = [Folder(path, folder_size(path)) for path in lost if path.name not in remembered]
    return known, strange


def _unrecorded(folders: dict[str, Path], holdings: Holdings) -> Iterator[tuple[str, Path]]:
    for identity, path in folders.items():
        if identity not in holdings.runs and identity not in holdings.models:
            yield identity, path
