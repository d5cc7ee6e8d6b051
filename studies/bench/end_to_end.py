"""A whole study of `global_kmeans` beside the script that a user would otherwise write.

Each side runs in a process of its own, on all of its cores, over databases of its own that are
made before anything is timed; the maps are at hand on both. The script ends with its last trial:
trials are held against trials, by the clock. All of a study, from the opened data to the registered
model, is shown beside that loop alone, and nothing is stated of it: the script does a part of it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import optuna

from mlflow_server import local_uri
from studies.bench import plain_study
from studies.bench.maps import MapSet
from studies.bench.ratio import Ratio, processor_seconds
from studies.runner import run
from studies.settings import Settings
from studies.storage import best_feasible, open_storage, stored_studies
from studies.study import find_study

PART = "a study"
STUDY = "global_kmeans"
STATED = 8
AGREEMENT = 1e-9  # of the best values
TIMED = "timed"  # the label of the search that counts
WARM_UP = 2  # trials of a study before: databases, compiled code, imports


@dataclass(frozen=True)
class StudyEffort:
    """How many trials, how often by turns, and what is stated of a whole study of so many."""

    n_trials: int
    rounds: int
    stated_whole: float | None


FULL = StudyEffort(n_trials=300, rounds=1, stated_whole=STATED)
QUICK = StudyEffort(n_trials=20, rounds=1, stated_whole=None)  # what ends a study weighs too much


class Outcome(NamedTuple):
    """One side's search: seconds of all of it and of the processor meanwhile, when its trials
    began, when the last one ended."""

    whole: float
    processor: float
    starts: list[float]
    end: float
    best_value: float

    @property
    def trials(self) -> float:
        """Seconds from the first trial's begin to the last one's end."""
        return self.end - self.starts[0]

    @property
    def a_trial(self) -> float:
        """Seconds from trial to trial in the median: a disk that stands still moves it little."""
        return self.around(0, reach=len(self.starts))

    def around(self, trial: int, reach: int = 10) -> float:
        """The same of those around a trial; the first may have something to load."""
        seconds = np.diff([*self.starts, self.end])
        return float(np.median(seconds[max(1, trial - reach) : trial + reach]))


class Searches(NamedTuple):
    """The same search on both sides."""

    peer: Outcome
    ours: Outcome


def searches_by_turns(settings: Settings, maps: MapSet, effort: StudyEffort) -> list[Searches]:
    """Both sides, round by round."""
    return [_both_sides(settings, maps, effort.n_trials) for _ in range(effort.rounds)]


def study_ratios(rounds: list[Searches], maps: MapSet, effort: StudyEffort) -> list[Ratio]:
    """Trials beside trials, and the whole study beside the loop."""
    fault = next(filter(None, (disagreement(one) for one in rounds)), "")

    def ratio(
        what: str, against: str, seconds: Callable[[Outcome], float], at_least: float | None
    ) -> Ratio:
        peer, ours = ([seconds(side) for side in sides] for sides in zip(*rounds, strict=True))
        return Ratio(
            PART,
            what,
            against,
            statistics.median(peer),
            statistics.median(ours),
            "s",
            statistics.median(a / b for a, b in zip(peer, ours, strict=True)),
            at_least,
            os.getloadavg()[0],
            fault,
        )

    return [
        ratio(
            f"{STUDY}, one of {effort.n_trials} trials, {len(maps.values)} maps",
            "a trial of an Optuna loop with MLflow's fluent calls and scikit-learn's KMeans",
            lambda outcome: outcome.a_trial,
            STATED,
        ),
        ratio(
            f"{STUDY}, {effort.n_trials} trials, first begin to last end",
            "that loop",
            lambda outcome: outcome.trials,
            effort.stated_whole,
        ),
        ratio(
            f"{STUDY}, all of it: data, trials, test, report, registered model",
            "that loop alone",
            lambda outcome: outcome.whole,
            None,
        ),
        ratio(
            "the same in seconds of the processor",
            "that loop alone",
            lambda outcome: outcome.processor,
            None,
        ),
    ]


def disagreement(searches: Searches) -> str:
    """Why the two searches are not the same; empty where they are."""
    peer, ours = searches.peer.best_value, searches.ours.best_value
    return "" if abs(ours - peer) <= AGREEMENT else f"the best value is {ours} and not {peer}"


def _both_sides(settings: Settings, maps: MapSet, n_trials: int) -> Searches:
    with own_folder(settings) as folder:
        np.save(folder / "values.npy", maps.values)
        np.save(folder / "labels.npy", maps.labels)
        return Searches(
            *(in_process(side, STUDY, settings, folder, n_trials) for side in Searches._fields)
        )


@contextmanager
def own_folder(settings: Settings) -> Iterator[Path]:
    """A folder for databases and files, with the settings' own cache and data, gone afterwards."""
    with TemporaryDirectory(prefix="bench-", dir=settings.root) as name:
        for shared in ("cache", "data"):
            (Path(name) / shared).symlink_to(settings.root / shared)
        yield Path(name)


def in_process(
    side: str,
    study: str,
    settings: Settings,
    folder: Path,
    n_trials: int,
    *,
    warm_up: int = WARM_UP,
) -> Outcome:
    """A search of one side in a fresh process, whose databases and files go below `folder`.

    `warm_up` is of how many trials the study before it is; 0: none.
    """
    own = replace(
        settings,
        root=folder,
        storage_url=f"sqlite:///{folder / side}.db",
        tracking_uri=local_uri(folder / side),
    )
    (folder / side).mkdir()
    asked = json.dumps(asdict(own), default=str)
    counts = [str(warm_up), str(n_trials)]
    done = subprocess.run(
        [sys.executable, "-m", "studies.bench.end_to_end", side, study, *counts, asked],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"The search ({side}) failed: {done.stderr.strip()}")
    return Outcome(**json.loads(done.stdout.splitlines()[-1]))


def search_ours(study: str, settings: Settings, n_trials: int, label: str) -> optuna.Study:
    """As `make study` does it, from the opened data to the registered model."""
    run(find_study(study), replace(settings, trials=n_trials, label=label))
    names = optuna.get_all_study_names(open_storage(settings.storage_url))
    return stored_studies(settings.storage_url, [name for name in names if label in name])[0]


def search_plainly(study: str, settings: Settings, n_trials: int, label: str) -> optuna.Study:
    """As the script does it, which knows one study; its maps are beside its databases."""
    return plain_study.search(
        np.load(settings.root / "values.npy"),
        np.load(settings.root / "labels.npy"),
        name=label,
        n_trials=n_trials,
        seed=settings.seed,
        storage=open_storage(settings.storage_url),
        tracking_uri=settings.tracking_uri,
    )


SEARCHES = {"ours": search_ours, "peer": search_plainly}


def main(arguments: list[str]) -> None:
    """One side; its outcome as a line of JSON."""
    side, study, warm_up, n_trials, asked = arguments
    settings = Settings(**json.loads(asked))
    settings = replace(settings, root=Path(settings.root))
    search = SEARCHES[side]
    if int(warm_up):
        search(study, settings, int(warm_up), "warm-up")
    started = time.perf_counter(), processor_seconds()
    found = search(study, settings, int(n_trials), TIMED)
    whole, processor = time.perf_counter() - started[0], processor_seconds() - started[1]
    trials = found.get_trials(deepcopy=False)
    outcome = Outcome(
        whole,
        processor,
        [trial.datetime_start.timestamp() for trial in trials],
        trials[-1].datetime_complete.timestamp(),
        best_feasible(found).value,
    )
    print(json.dumps(outcome._asdict()))


if __name__ == "__main__":
    from studies.__main__ import quiet

    quiet()
    main(sys.argv[1:])
