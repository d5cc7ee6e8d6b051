"""`make gc`: the best trials and what aliases need keep their files, all others lose them.

Owns the order of things. What must stay is `needs`' and `leftovers`' to say, how a part of the
record is removed mlflow_server.upkeep's.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mlflow_server.connection import database_file, is_server
from mlflow_server.tracking import CLEANED_TAG
from mlflow_server.upkeep import HeldRun, Holdings, Upkeep, folder_size
from studies.progress import show_markdown
from studies.record import HOLDER
from studies.settings import Settings
from studies.storage import searches
from studies.study import StudyError
from studies.upkeep.duplicates import Duplicate, find_duplicates, join
from studies.upkeep.gc_report import Row, write_account
from studies.upkeep.leftovers import (
    A_MONTH,
    Folder,
    artifact_folders,
    cache_entries,
    orphans,
    published_folders,
)
from studies.upkeep.needs import (
    MADE_BY,
    Needs,
    find_needs,
    mentioned_in,
    read_search,
    weights_in,
)
from training.cache import Cache
from training.data.synthetic import MANIFEST

LOOKED = ".gc"  # below VAR_DIR: that somebody has seen what would go
LOCK = ".upkeep.lock"


@dataclass(frozen=True)
class Plan:
    """What may go, with its bytes, and what stays."""

    keep: int
    holdings: Holdings
    needs: Needs
    runs: dict[str, int]  # of each run to clean: bytes
    models: dict[str, int]  # of each logged model to remove
    duplicates: list[Duplicate]
    published: list[Folder]
    cache: list[Folder]
    orphans: list[Folder]
    strangers: list[Folder]
    kept: dict[str, int]  # kind -> bytes that stay


def collect(settings: Settings, *, keep: int, dry: bool | None) -> None:
    """Say what may go and, unless this is a dry run, remove it; None is dry the first time."""
    refuse_nothing(settings)
    with only_one(settings.root):
        upkeep = Upkeep(settings.tracking_uri)
        plan = make_plan(upkeep, settings, keep)
        show_markdown(write_account(rows(plan, settings.root, settings.artifact_root), plan))
        if is_dry(settings.root, dry):
            print("Nothing was removed. Run it again, or with DRY=0, to delete.")
            return
        carry_out(upkeep, plan, settings.root)
        print(f"Removed. What stays of {settings.root} is as large as the table says.")


def refuse_nothing(settings: Settings) -> None:
    """Refuse a VAR_DIR without studies: databases would be made there."""
    database = database_file(settings.tracking_uri)
    if not settings.root.is_dir() or (database is not None and not database.exists()):
        raise StudyError(
            f"There are no studies below {settings.root}: set VAR_DIR to the folder with them."
        )


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Clearing up, backing up and restoring wait for nobody, and do not meet."""
    try:
        with FileLock(root / LOCK, timeout=0):
            yield
    except Timeout as error:
        raise StudyError(
            f"Another `make gc`, `make backup` or `make restore` works on {root}: wait for its end."
        ) from error


def is_dry(root: Path, asked: bool | None) -> bool:
    """Whether nothing is removed: as asked, else the first time that nobody asks."""
    if asked is not None:
        return asked
    first = not (root / LOOKED).exists()
    (root / LOOKED).touch()
    return first


def make_plan(upkeep: Upkeep, settings: Settings, keep: int) -> Plan:
    """Look at everything, and decide."""
    folders = artifact_folders(settings.artifact_root)  # before the record: see `orphans`
    known = {study.study_name: read_search(study) for study in searches(settings.storage_url)}
    holdings = upkeep.holdings()
    upkeep.refuse_files_elsewhere(holdings)
    needs = find_needs(
        holdings,
        known,
        keep=keep,
        mentioned=generators(settings.root, holdings),
        now=round(time.time() * 1000),
    )
    entries, cache = cache_entries(settings.root, needs, unasked=A_MONTH if keep else 0)
    runs = {run.id: upkeep.size(run.folder) for run in needs.runs_to_clean}
    models = {one.id: upkeep.size(one.folder) for one in needs.models_to_remove}
    lost, strange = (
        ([], [])
        if is_server(settings.tracking_uri)
        else orphans(folders, holdings, upkeep.remembered())
    )
    return Plan(
        keep=keep,
        holdings=holdings,
        needs=needs,
        runs={run.id: runs[run.id] for run in needs.runs_to_clean if _has_files(run, runs)},
        models=models,
        duplicates=find_duplicates(holdings, needs),
        published=published_folders(settings.root, holdings, known, needs),
        cache=cache,
        orphans=lost,
        strangers=strange,
        kept={
            "runs": sum(upkeep.size(run.folder) for run in _others(holdings.runs, runs)),
            "models": sum(upkeep.size(one.folder) for one in _others(holdings.models, models)),
            "cache": sum(entry.size for entry in entries),
        },
    )


def _others(every: dict, gone: dict) -> Iterator:
    return (one for identity, one in every.items() if identity not in gone)


def _has_files(run: HeldRun, sizes: dict[str, int]) -> bool:
    return CLEANED_TAG not in run.tags or sizes[run.id] > 0


def generators(root: Path, holdings: Holdings) -> set[str]:
    """The runs whose generators made the synthetic sets below VAR_DIR, and those that studies
    have trained on."""
    said = [run.tags[MADE_BY] for run in holdings.runs.values() if MADE_BY in run.tags]
    for manifest in (root / "synthetic").glob(f"*/{MANIFEST}"):
        try:
            said.append(json.loads(manifest.read_text())["origin"]["source"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StudyError(
                f"{manifest} cannot be read, so nobody knows which generator it needs. Remove the "
                "folder, or make the set again with `make generate`."
            ) from error
    return mentioned_in(said)


def carry_out(upkeep: Upkeep, plan: Plan, root: Path) -> None:
    """Remove what the plan says, what others need last: interrupted, the next call goes on.

    A version goes before its model and a model before its run's files, so that no record that is
    left names files that are not.
    """
    for version in plan.needs.versions_to_remove:
        upkeep.remove_version(version)
    spared = {one.run for one in plan.needs.models_to_remove if not upkeep.remove_model(one)}
    clean_runs(upkeep, plan, spared=spared)
    for duplicate in plan.duplicates:
        join(upkeep, duplicate)
    for folder in [*plan.published, *plan.orphans]:
        shutil.rmtree(folder.path, ignore_errors=True)
    cache = Cache(root / "cache")
    for entry in plan.cache:
        cache.forget(entry.path.stem)


def clean_runs(upkeep: Upkeep, plan: Plan, *, spared: set[str | None]) -> None:
    """Clean the runs, those last that hold weights: who linked to them is cleaned by then.

    The runs of models that have been registered meanwhile are spared, and so is what they link to.
    """
    today = datetime.now(UTC).date().isoformat()
    to_clean = [run for run in plan.needs.runs_to_clean if run.id in plan.runs]
    others = {run.id for run in to_clean} - spared
    for run in to_clean:
        if run.id in others:
            links = [HOLDER.format(network) for network in weights_in(run)]
            upkeep.clean_run(run, today, links=links, others=others)


def rows(plan: Plan, root: Path, artifacts: Path) -> list[Row]:
    """The account by kind; what is not among them is never touched."""
    copies, lost = _bytes(plan.published), _bytes(plan.orphans)
    runs, models = sum(plan.runs.values()), sum(plan.models.values())
    doubled, cache = sum(one.size for one in plan.duplicates), _bytes(plan.cache)
    counted = copies + folder_size(artifacts) + folder_size(root / "cache")
    return [
        Row(
            "trials' files",
            plan.kept["runs"] + runs,
            len(plan.runs) + len(plan.duplicates),
            runs + doubled,
        ),
        Row("logged models", plan.kept["models"] + models, len(plan.models), models),
        Row("what studies/ holds twice", copies, len(plan.published), copies),
        Row("cache", plan.kept["cache"] + cache, len(plan.cache), cache),
        Row("without a record", lost + _bytes(plan.strangers), len(plan.orphans), lost),
        Row("data, reports, databases, ...", folder_size(root) - counted, 0, 0),
    ]


def _bytes(folders: list[Folder]) -> int:
    return sum(folder.size for folder in folders)
