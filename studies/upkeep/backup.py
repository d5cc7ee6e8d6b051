"""`make backup`: databases, files of runs and models, studies and reports in one archive.

Owns what is saved and in which order. Left out is what can be made or found again: the cache, the
images and what was prepared from them, of which the manifests are saved.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from sqlalchemy.engine import make_url

from mlflow_server.connection import database_file, is_server
from studies.progress import format_seconds
from studies.provenance import read_commit
from studies.settings import Settings
from studies.study import StudyError
from studies.upkeep.archive import SUFFIXES, write_archive
from studies.upkeep.gc import only_one, refuse_nothing
from studies.upkeep.gc_report import size

OPTUNA, MLFLOW = "optuna.db", "mlflow/mlflow.db"  # where databases are in an archive
ARTIFACTS = "mlflow/artifacts"
BACKUPS = "backups"
LEFT_OUT = ("cache", "data", BACKUPS)  # below VAR_DIR
MANIFESTS = "manifests"  # of prepared data, in an archive
UNFINISHED = (".lock", ".tmp", "-wal", "-shm", "-journal")
SQLITE = b"SQLite format 3\0"
VERSIONS = ("brain-tumor-studies", "mlflow", "optuna", "torch")


class Source(NamedTuple):
    """A file, and what it is called in the archive."""

    name: str
    path: Path


def back_up(settings: Settings, to: str | None) -> Path:
    """Write an archive, read it back, and say where it is and what is not in it."""
    refuse_nothing(settings)
    started = time.monotonic()
    path = target(settings.root, to)
    with only_one(settings.root):
        databases = find_databases(settings)
        total = sum(source.path.stat().st_size for source in find_files(settings, databases))
        live = sum(database.stat().st_size for database in databases.values())
        check_room(path.parent, total + 2 * live)  # each is copied before it is packed
        header = describe(settings, databases, total + live)
        try:
            with TemporaryDirectory(dir=path.parent, prefix=".backup-") as scratch:
                n = write_archive(path, header, sources(settings, databases, Path(scratch)))
        except (OSError, sqlite3.Error) as error:
            raise StudyError(
                f"{path} could not be written ({error}). Nothing is left of it; try again, or name "
                "a folder on another disk with TO=."
            ) from error
    took = format_seconds(time.monotonic() - started)
    print(f"Written and read back: {path}, {n} files, {size(path.stat().st_size)}, in {took}.")
    print("Not in it: images and what was prepared from them, and the cache, which is made again.")
    for line in header["missing"]:
        print(f"Not in it: {line}")
    return path


def target(root: Path, to: str | None) -> Path:
    """Where the archive goes: a file as named, or one with the date in a folder."""
    named = Path(to).expanduser().absolute() if to else root / BACKUPS
    if not named.name.endswith(SUFFIXES):
        if named.suffix and not named.is_dir():
            raise StudyError(
                f"TO must end in {' or '.join(SUFFIXES)}, or name a folder, got '{to}'."
            )
        named = named / f"{datetime.now():%Y-%m-%d-%H%M%S}.tar.gz"
    try:
        named.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(
            f"TO={to} cannot be written to ({error.strerror}): name another place."
        ) from error
    if named.exists():
        raise StudyError(f"{named} exists already: name another file with TO=.")
    return named


def find_databases(settings: Settings) -> dict[str, Path]:
    """The SQLite files that trials and runs are in, wherever they are, by their names here."""
    addresses = {OPTUNA: settings.storage_url, MLFLOW: settings.tracking_uri}
    found = {name: database_file(address) for name, address in addresses.items()}
    return {name: path for name, path in found.items() if path is not None and path.exists()}


def missing(settings: Settings) -> list[str]:
    """What no file holds, and how it is saved."""
    said = []
    for what, address in (("trials", settings.storage_url), ("runs", settings.tracking_uri)):
        if is_server(address):
            said.append(
                f"the record of {address}, a server: save its database and its files where it runs."
            )
        elif database_file(address) is None:
            hidden = make_url(address).render_as_string(hide_password=True)
            said.append(
                f"the {what} in {hidden}: save them with the database's own tool, such as "
                f"`pg_dump --file={what}.sql`, and give them back with `psql --file={what}.sql`."
            )
    return said


def describe(settings: Settings, databases: dict[str, Path], n_bytes: int) -> dict:
    """What the archive says of itself."""
    return {
        "written": datetime.now().astimezone().isoformat(timespec="seconds"),
        "root": str(settings.root),
        # it may be a link to another disk, and runs name where it leads to
        ARTIFACTS: str(settings.artifact_root.resolve()),
        "databases": sorted(databases),
        "missing": missing(settings),
        "bytes": n_bytes,
        "commit": read_commit().hash,
        "versions": {name: version(name) for name in VERSIONS},
    }


def sources(
    settings: Settings, databases: dict[str, Path], scratch: Path
) -> Iterator[tuple[str, Path]]:
    """Every file with its name, in an order that a running study does not break.

    Runs first and then trials: a run without its trial would be taken for another's, a trial
    without its run is published again. What is not published yet comes next, since it disappears
    when it is.
    """
    for name in (MLFLOW, OPTUNA):
        if name in databases:
            copy = scratch / Path(name).name
            copy_database(databases[name], copy)
            yield name, copy
    for name, path in find_files(settings, databases):
        if is_database(path):
            copy = scratch / "other.db"
            copy_database(path, copy)
            yield name, copy
            copy.unlink()
        else:
            yield name, path


def find_files(settings: Settings, databases: dict[str, Path]) -> Iterator[Source]:
    """The files below VAR_DIR that are saved, databases of trials and runs left out."""
    root, taken = settings.root, {path.resolve() for path in databases.values()}
    tops = sorted(root.iterdir(), key=lambda path: (path.name != "studies", path.name))
    for top in tops:
        if top.name in LEFT_OUT or top.name.startswith(".") or top.name.endswith(UNFINISHED):
            continue
        for path in _below(top) if top.is_dir() else [top]:
            name = path.relative_to(root).as_posix()
            if path.resolve() not in taken and name not in databases:
                yield Source(name, path)
    for path in sorted((root / "data" / "prepared").glob("*/*.csv")):
        yield Source(f"{MANIFESTS}/{path.parent.name}/{path.name}", path)


def _below(folder: Path) -> Iterator[Path]:
    """Files at any depth, through links to folders too, which may lie on another disk."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = Path(parent).resolve()
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.endswith(UNFINISHED))
        for name in sorted(files):
            path = Path(parent) / name
            if not name.endswith(UNFINISHED) and path.is_file():
                yield path


def is_database(path: Path) -> bool:
    """Whether a file is SQLite's: it may be written to while it is read."""
    try:
        with path.open("rb") as file:
            return file.read(len(SQLITE)) == SQLITE
    except FileNotFoundError:
        return False


def copy_database(path: Path, copy: Path) -> None:
    """A database as it is at one moment, while others write to it."""
    with (
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as live,
        closing(sqlite3.connect(copy)) as whole,
    ):
        live.backup(whole)
        whole.execute("PRAGMA journal_mode = DELETE")  # all of it in one file


def check_room(folder: Path, n_bytes: int) -> None:
    """Refuse what the disk has no room for."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StudyError(
            f"{size(n_bytes)} are needed in {folder}, and {size(free)} are free: clear up with "
            "`make gc`, or name a folder on another disk."
        )
