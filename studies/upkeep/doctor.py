"""`make doctor`: whether everything that studies stand on is there, and a cure for what is not.

It only looks: packages, device, databases, server, disk, and what dead processes have left. Each
check is a function that says what it saw, and what is to be done where that is not well.
"""

import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from optuna.trial import TrialState

from mlflow_server import Tracking, TrackingError
from mlflow_server.connection import database_file, is_server, server_version
from mlflow_server.upkeep import Upkeep
from studies.opening import read_opening
from studies.settings import Settings
from studies.storage import begun, open_storage, running_trials, searches
from studies.study import StudyError
from studies.upkeep.leftovers import artifact_folders, orphans
from studies.upkeep.sync import Debt, openings
from training.device import DeviceError, device_summary, resolve_device

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
LOOKED_AT = ("torch", "torchvision", "optuna", "mlflow", "numpy", "scikit-learn", "numba", "pandas")
GB = 10**9
FULL, NEARLY_FULL = 1 * GB, 5 * GB  # our choice: a study of detectors writes a few hundred MB


class Finding(NamedTuple):
    """What a check saw; `cure` where something is to be done, and "" where all is well."""

    what: str
    cure: str = ""


def examine(settings: Settings) -> bool:
    """Look at everything, a line each; whether all is well."""
    ill = 0
    for check in CHECKS:
        for finding in findings(check, settings):
            print(f"{'!!' if finding.cure else 'ok'}  {finding.what}")
            if finding.cure:
                ill += 1
                print(f"    cure: {finding.cure}")
    print(f"{ill} findings." if ill else "All is well.")
    return not ill


def findings(check: "Check", settings: Settings) -> Iterator[Finding]:
    """What a check says; one that cannot look says that."""
    try:
        yield from check(settings)
    except (StudyError, TrackingError) as error:
        yield Finding(str(error), "see the sentence itself")
    except Exception as error:  # whatever is broken, the other checks still look
        name = check.__name__.replace("_", " ")
        text = (str(error).splitlines() or [""])[0]
        yield Finding(f"{name}: {type(error).__name__}: {text}", "mend what is named, look again")


def versions(settings: Settings) -> Iterator[Finding]:
    """Whether the packages are those that this was tried with."""
    wanted = dict(line.split("==") for line in CONSTRAINTS.read_text().splitlines() if "==" in line)
    others = []
    for name in LOOKED_AT:
        try:
            installed = version(name).partition("+")[0]
        except PackageNotFoundError:
            installed = "missing"
        if name in wanted and installed != wanted[name].strip():
            others.append(f"{name} {installed}, not {wanted[name].strip()}")
    if others:
        yield Finding(f"packages: {'; '.join(others)}", "rm -r .venv, then any make target")
    else:
        shown = ", ".join(f"{name} {version(name)}" for name in ("torch", "optuna", "mlflow"))
        yield Finding(f"packages: {shown}")


def device(settings: Settings) -> Iterator[Finding]:
    """Whether the device computes."""
    try:
        found = resolve_device("auto")
        ones = torch.ones(64, 64, device=found)
        if float((ones @ ones).sum()) != 64**3:
            yield Finding(f"device: {found} computes wrongly", "DEVICE=cpu, and another machine")
            return
    except (DeviceError, RuntimeError) as error:
        yield Finding(f"device: {error}", "DEVICE=cpu, or mend the driver")
        return
    about = device_summary(found)
    yield Finding(f"device: {found}, {about['device_name']}, {about['threads']} threads")
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        yield Finding(
            "device: there is a GPU that torch cannot use",
            "install a torch for its driver (https://pytorch.org), or go on with DEVICE=cpu",
        )


def disk(settings: Settings) -> Iterator[Finding]:
    """Whether there is room, and whether it may be written."""
    place = next(path for path in (settings.root, *settings.root.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"disk: {free / GB:.1f} GB free below {place}"
    if free < FULL:
        yield Finding(text, "free some space: `make gc` first, and a smaller CACHE_GB")
    elif free < NEARLY_FULL:
        yield Finding(f"{text}, which is little: think of `make gc`")
    else:
        yield Finding(text)
    probe = place / ".doctor"
    try:
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as error:
        yield Finding(f"disk: {place} cannot be written ({error.strerror})", "another VAR_DIR")


def storage(settings: Settings) -> Iterator[Finding]:
    """Whether Optuna's storage opens."""
    if _is_new(settings.storage_url):
        yield Finding("storage: there are no trials yet")
        return
    open_storage(settings.storage_url)
    n_studies = len(list(searches(settings.storage_url)))
    yield Finding(f"storage: {_without_password(settings.storage_url)}, {n_studies} studies")


def tracking(settings: Settings) -> Iterator[Finding]:
    """Whether MLflow answers, in the version that is installed."""
    uri = settings.tracking_uri
    if _is_new(uri):
        yield Finding("tracking: there is no record yet")
        return
    Tracking(uri, settings.artifact_root)
    there, here = server_version(uri), version("mlflow")
    if is_server(uri) and there != here:
        yield Finding(
            f"tracking: the server at {uri} is MLflow {there}, here is {here}",
            f"install mlflow=={here} where the server runs, and start it again",
        )
    else:
        yield Finding(f"tracking: {_without_password(uri)}, MLflow {here}")


def trials(settings: Settings) -> Iterator[Finding]:
    """Whether trials run that no process runs any more."""
    if _is_new(settings.storage_url):
        return
    n_running = 0
    for search in searches(settings.storage_url):
        running = search.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        living = running_trials(search)
        dead = [trial.number for trial in running if trial.number not in living]
        n_running += len(living)
        if dead:
            yield Finding(
                f"trials: {search.study_name} has {len(dead)} RUNNING without a process: "
                f"{_listed(dead)}",
                "`make sync`, or run the study again: their points are tried again",
            )
    yield Finding(f"trials: {n_running} run")


def runs(settings: Settings) -> Iterator[Finding]:
    """Whether the record has all, each once, and nothing that only seems to run."""
    if _is_new(settings.storage_url) or _is_new(settings.tracking_uri):
        return
    folders = {read_opening(path.parent).study: path.parent for path in openings(settings.root)}
    record = Tracking(settings.tracking_uri, settings.artifact_root)
    experiments = record.experiments.ids()
    is_well = True
    for search in searches(settings.storage_url):
        name = search.study_name
        if name in experiments and (twice := record.doubles(experiments[name], name)):
            is_well = False
            yield Finding(f"runs: {name} has trials twice: {_listed(twice)}", "`make sync`")
        if name not in folders or not begun(search):
            continue
        debt = Debt.of(record, search, folders[name])
        if not debt.is_paid:
            is_well = False
            yield Finding(f"runs: {name} owes MLflow {debt.words()}", "`make sync`")
    if is_well:
        yield Finding("runs: every ended trial has its run")


def files(settings: Settings) -> Iterator[Finding]:
    """Whether files lie below the record that it knows nothing of."""
    if is_server(settings.tracking_uri) or _is_new(settings.tracking_uri):
        return
    folders = artifact_folders(settings.artifact_root)  # before the record: see `orphans`
    upkeep = Upkeep(settings.tracking_uri)
    known, strange = orphans(folders, upkeep.holdings(), upkeep.remembered())
    if known:
        size = sum(folder.size for folder in known) / 1e6
        yield Finding(
            f"files: {len(known)} folders ({size:.1f} MB) of runs that are gone", "`make gc`"
        )
    if strange:
        yield Finding(
            f"files: {len(strange)} folders that this record has never heard of, such as "
            f"{strange[0].path}",
            "move them to the record that they are of, or remove them",
        )
    if not (known or strange):
        yield Finding("files: all are of a run or a model")


Check = Callable[[Settings], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (versions, device, disk, storage, tracking, trials, runs, files)


def _is_new(url: str) -> bool:
    """Whether a database would be made by looking at it."""
    database = database_file(url)
    return database is not None and not database.exists()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return shown if len(numbers) <= 10 else f"{shown} and {len(numbers) - 10} more"
