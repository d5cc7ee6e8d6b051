"""What a trial costs beside its arithmetic, and what a long study leaves behind.

Measured on `giaem`, the head that costs least, so that nearly all of a trial is Optuna's and
MLflow's; the head's own part is not taken off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from studies.bench.end_to_end import TIMED, WARM_UP, Outcome, in_process, own_folder
from studies.settings import Settings

STUDY = "giaem"
MEGABYTE = 1e6


class Limit(NamedTuple):
    """A cost and what is stated of it."""

    what: str
    value: float
    unit: str
    at_most: float

    @property
    def kept(self) -> bool:
        """Whether it is as stated."""
        return self.value <= self.at_most

    def sentence(self) -> str:
        """What is missed, if it is."""
        return f"{self.what}: {self.value:.3g} {self.unit}, stated are at most {self.at_most:g}."


@dataclass(frozen=True)
class RecordEffort:
    """How many trials, and of how many the study before them is; growth is looked at where there
    are a thousand."""

    n_trials: int
    warm_up: int


FULL = RecordEffort(n_trials=1000, warm_up=WARM_UP)
QUICK = RecordEffort(n_trials=60, warm_up=0)  # one trial is all that is shown: the median of these


def limits(settings: Settings, effort: RecordEffort) -> Iterator[Limit]:
    """A study of so many trials, its costs and its room."""
    n = effort.n_trials
    with own_folder(settings) as folder:
        outcome = in_process("ours", STUDY, settings, folder, n, warm_up=effort.warm_up)
        yield Limit(f"a trial of {STUDY}, its head included", 1000 * outcome.a_trial, "ms", 30)
        if n < FULL.n_trials:
            return
        yield Limit(f"trial {n} beside trial 100", grown(outcome), "times", 1.5)
        around = outcome.whole - outcome.trials
        what = f"what comes before and after {n} trials: data, test, report, model"
        yield Limit(what, around, "s", 15)
        report = next((folder / "reports").glob(f"*{TIMED}*.html"))
        yield Limit(f"the report of {n} trials", report.stat().st_size / MEGABYTE, "MB", 12)
        yield Limit(f"all that {n} trials leave on the disk", room(folder) / MEGABYTE, "MB", 60)


def grown(outcome: Outcome) -> float:
    """How many times the cost of trial 100 the last ones have."""
    return outcome.around(len(outcome.starts) - 25, reach=25) / outcome.around(100, reach=25)


def room(folder: Path) -> int:
    """Bytes of a folder's files, each once; what the cache holds is the cache's."""
    cached = {path.stat().st_ino for path in (folder / "cache").rglob("*")}
    files = [path.lstat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum({each.st_ino: each.st_size for each in files if each.st_ino not in cached}.values())
