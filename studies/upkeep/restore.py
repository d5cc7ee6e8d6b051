"""`make restore`: an archive of `make backup` as a VAR_DIR again, there or elsewhere.

Owns the order of things: everything is unpacked, checked and moved beside, and comes into place by
a rename, so that what fails leaves all as it was.
"""

import shutil
import sqlite3
from contextlib import closing, nullcontext
from datetime import datetime
from pathlib import Path

from mlflow_server.connection import connect, local_uri
from mlflow_server.relocate import relocate
from studies.settings import Settings
from studies.storage import fail_all_running, running_trials, searches
from studies.study import StudyError
from studies.upkeep.archive import read_header, unpack
from studies.upkeep.backup import ARTIFACTS, LEFT_OUT, MLFLOW, OPTUNA, check_room, is_database
from studies.upkeep.gc import only_one
from studies.upkeep.gc_report import size


def restore(settings: Settings, archive: Path, into: Path | None, *, replace: bool) -> Path:
    """Put an archive in place of `into`, or of VAR_DIR; what was there is kept beside."""
    header = read_header(archive)
    root = (into or settings.root).expanduser().resolve()
    refuse_overwriting(root, replace)
    beside = root.with_name(f".{root.name}.restoring")
    with only_one(root) if root.is_dir() else nullcontext():
        try:
            shutil.rmtree(beside, ignore_errors=True)
            root.parent.mkdir(parents=True, exist_ok=True)
            check_room(root.parent, header["bytes"])
            unpack(archive, beside)
            settle(beside, header, root)
            aside = put_in_place(beside, root)
        except OSError as error:
            raise StudyError(
                f"{archive} could not be restored to {root} ({error}); nothing there has changed. "
                "Name another folder with INTO=, and then set VAR_DIR to it."
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    say(settings, header, root, aside)
    return root


def refuse_overwriting(root: Path, replace: bool) -> None:
    """Refuse a folder that holds studies, unless it is to be replaced and nothing runs there."""
    if root.exists() and not root.is_dir():
        raise StudyError(f"{root} is a file: INTO= must name a folder.")
    if not any((root / name).exists() for name in (OPTUNA, MLFLOW)):
        return
    if not replace:
        raise StudyError(
            f"{root} holds studies already: restore INTO= another folder, or say REPLACE=1, which "
            "keeps them beside."
        )
    running = [s.study_name for s in _searches(root) if running_trials(s)]
    if running:
        raise StudyError(f"{root} is in use: {', '.join(running)} runs. Stop it first.")


def _searches(root: Path):
    return searches(f"sqlite:///{root / OPTUNA}") if (root / OPTUNA).exists() else ()


def settle(beside: Path, header: dict, root: Path) -> None:
    """Make what was unpacked fit for its new place: its addresses, and no trial that runs."""
    moves = {Path(header[ARTIFACTS]): root / ARTIFACTS, Path(header["root"]): root}
    for path in [path for path in beside.rglob("*.db") if is_database(path)]:
        check_database(path)
        relocate(path, moves)
    if (beside / OPTUNA).exists():
        fail_all_running(f"sqlite:///{beside / OPTUNA}", "it was running when the backup was made")
    if (beside / MLFLOW).exists():
        connect(local_uri(beside))  # says which MLflow is needed, if not this one


def check_database(path: Path) -> None:
    """Refuse a database that is not whole."""
    with closing(sqlite3.connect(path)) as connection:
        (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise StudyError(f"{path.name} in the archive is damaged ({said}). Take another backup.")


def put_in_place(new: Path, root: Path) -> Path | None:
    """Two renames; where what was there is now, if it is more than what can be made again.

    Cache, images and backups, which no archive holds, come back into their place.
    """
    if not root.exists():
        new.rename(root)
        return None
    aside = root.with_name(f"{root.name}.before-{datetime.now():%Y-%m-%d-%H%M%S}")
    had_studies = any((root / name).exists() for name in (OPTUNA, MLFLOW))
    root.rename(aside)
    try:
        new.rename(root)
    except OSError:
        aside.rename(root)
        raise
    for path in list(aside.iterdir()):
        if (path.name in LEFT_OUT or not had_studies) and not (root / path.name).exists():
            path.rename(root / path.name)
    if any(aside.iterdir()):
        return aside
    aside.rmdir()
    return None


def say(settings: Settings, header: dict, root: Path, aside: Path | None) -> None:
    """Where all is, and what is not."""
    print(f"Restored: {root}, {size(header['bytes'])}, as of {header['written']}.")
    for line in header["missing"]:
        print(f"Not in the archive: {line}")
    if aside:
        print(f"What was there is in {aside}: delete it once you are content.")
    if root != settings.root:
        print(f"Use it with VAR_DIR={root}")
    elif settings.tracking_uri != local_uri(root) or OPTUNA not in settings.storage_url:
        print("Unset MLFLOW_TRACKING_URI and OPTUNA_STORAGE to use its databases.")
