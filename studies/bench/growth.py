"""How a cost grows: with images, with pixels, with the trials before."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from models.heads import DBSCANHead, GlobalKMeans, ImageKMeans
from models.heads.giaem import best_giaem
from studies.bench.end_to_end import STUDY, Outcome
from studies.bench.heads import GRID
from studies.bench.maps import MapSet
from studies.bench.ratio import one_thread, seconds_of

SIDES = (64, 96, 128)  # pixels
N_RESIZED = 200  # maps
THRESHOLD = 0.1  # of error
EPS, MIN_SAMPLES = 0.02, 20


class Growth(NamedTuple):
    """Seconds of one thing at three sizes."""

    what: str
    of: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]


HEADS: dict[str, Callable[[MapSet], object]] = {
    "GIAEM, sorted, and its exact optimum": lambda maps: best_giaem(
        maps.values, maps.labels, thresholds=GRID
    ),
    "Global KMeans, a threshold": lambda maps: GlobalKMeans(THRESHOLD).fit(maps.values),
    "per-image KMeans": lambda maps: ImageKMeans().fit(maps.values).predict(maps.values),
    f"DBSCAN at eps {EPS:g}": lambda maps: (
        DBSCANHead(EPS, MIN_SAMPLES).fit(maps.values).predict(maps.values)
    ),
}


@dataclass(frozen=True)
class GrowthEffort:
    """How often each cost is measured, and how often it is had before that."""

    rounds: int
    before: int


FULL = GrowthEffort(rounds=3, before=1)
QUICK = GrowthEffort(rounds=1, before=0)


def growth(maps: MapSet, trials: Outcome | None, effort: GrowthEffort = FULL) -> Iterator[Growth]:
    """Heads by images and by pixels; trials by those before, where a search is at hand."""
    shuffled = np.random.default_rng(0).permutation(len(maps.values))
    counts = tuple(len(shuffled) * part // 4 for part in (1, 2, 4))
    by_count = [_part(maps, shuffled[:count]) for count in counts]
    by_side = [_resized(_part(maps, shuffled[:N_RESIZED]), side) for side in SIDES]
    pixels = tuple(side * side for side in SIDES)
    with one_thread():
        for what, ask in HEADS.items():
            ask(by_side[0])  # compiled before anything is timed
            seconds = tuple(_cost(ask, some, effort) for some in by_count)
            yield Growth(what, "images", counts, seconds)
            what = f"{what}, {len(by_side[0].values)} images"
            seconds = tuple(_cost(ask, some, effort) for some in by_side)
            yield Growth(what, "pixels", pixels, seconds)
    if trials:
        n = len(trials.starts)
        places = (n // 10, n // 3, n - n // 10)
        seconds = (trials.around(place, reach=max(2, n // 15)) for place in places)
        yield Growth(f"a trial of {STUDY}, all in all", "trials before", places, tuple(seconds))


def _part(maps: MapSet, chosen: np.ndarray) -> MapSet:
    return MapSet(maps.kind, maps.values[chosen], maps.labels[chosen])


def _resized(maps: MapSet, side: int) -> MapSet:
    values = [cv2.resize(one, (side, side), interpolation=cv2.INTER_AREA) for one in maps.values]
    return MapSet(maps.kind, np.clip(np.stack(values), 0, 1), maps.labels)


def _cost(ask: Callable[[MapSet], object], maps: MapSet, effort: GrowthEffort) -> float:
    for _ in range(effort.before):
        ask(maps)
    return statistics.median(seconds_of(lambda: ask(maps)) for _ in range(effort.rounds))
