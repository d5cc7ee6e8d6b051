"""A trial run again in a clean place: nothing that was kept is used, and nothing is kept.

Owns what "clean" is: a cache of its own that is thrown away, so that networks are trained and
features extracted anew; the data, and synthetic sets, are those of the settings.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from studies.session import Session, open_session
from studies.settings import Settings
from studies.space import Params
from studies.study import News, StudyError, find_study
from training.cache import Cache, CacheError
from training.data import DataError
from training.device import DeviceError, resolve_device

History = list[dict[str, float]]  # one dict of metrics an epoch
OF_SETTINGS = ("split", "preprocess", "detector", "seed", "train_on", "generator", "label")


class Again(NamedTuple):
    """What a trial did this time."""

    metrics: dict[str, float]
    history: History
    error: str | None  # what it failed of


class Enough(Exception):
    """As many epochs were trained as there had been."""


@contextmanager
def clean_session(
    places: dict[str, Any], recorded: dict[str, Any], *, data: str, device: str, precision: str
) -> Iterator[Session]:
    """The study of recorded settings, over a cache that is gone afterwards."""
    settings = Settings(
        **places, **{name: recorded[name] for name in OF_SETTINGS}, data=data, device=device
    )
    with TemporaryDirectory(prefix="reproduce-") as folder:
        cache = Cache(Path(folder))
        study = find_study(recorded["study"])
        try:
            session = open_session(study, settings, print, cache=cache, precision=precision)
        except DataError as error:
            raise StudyError(
                f"The images that this trial saw are not there any more: {error} Say with DATA= "
                "where they are now."
            ) from error
        yield session


def find_data(recorded: dict[str, Any], name: str) -> str:
    """What to load: a study on `auto` says of its data what that was then."""
    return name if recorded["data"] == "auto" else recorded["data"]


def find_device(then: str) -> str:
    """The kind of device that a trial ran on; where there is none here, what there is."""
    try:
        return resolve_device(then).type
    except DeviceError:
        return resolve_device("auto").type


def run_again(
    session: Session,
    params: Params,
    *,
    half_batches: bool,
    is_pruned: Callable[[History], bool],
    on_epoch: Callable[[int], None],
) -> Again:
    """Fit and score a point; `is_pruned` hears of the epochs so far, and may end it there."""
    history: History = []

    def keep_epoch(epoch: int, metrics: dict[str, float]) -> None:
        history.append(metrics)
        on_epoch(len(history))
        if is_pruned(history):
            raise Enough

    study = session.study
    lab = session.lab.with_half_batches() if half_batches else session.lab
    try:
        candidate = study.fit(params, lab, News(on_epoch=keep_epoch))
        metrics = study.score(candidate, lab)
    except Enough:
        return Again({}, history, None)
    except CacheError:  # the disk is full: not the trial's own
        raise
    except Exception as error:
        return Again({}, history, f"{type(error).__name__}: {error}")
    return Again(metrics, history, None)
