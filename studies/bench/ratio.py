"""A ratio: what one thing costs here and written plainly, measured by turns in one run."""

import gc
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numba
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class Ratio:
    """How many times less something costs here; `at_least` is what is stated, None what is not."""

    part: str
    what: str
    against: str
    peer: float
    ours: float
    unit: str
    ratio: float
    at_least: float | None
    load: float  # of the machine meanwhile: processes that wanted a core
    fault: str = ""  # why the two are not alike: they must be, before a time says anything

    @property
    def kept(self) -> bool:
        """Whether the results are alike, and the stated ratio is reached."""
        return not self.fault and (self.at_least is None or self.ratio >= self.at_least)

    def sentence(self) -> str:
        """What is missed, if it is."""
        if self.fault:
            return f"{self.what}: {self.fault}."
        return f"{self.what}: {self.ratio:.1f} times, stated are at least {self.at_least:g}."


class Timing(NamedTuple):
    """Seconds a round on both sides, medians, and the median of the rounds' own ratios."""

    peer: float
    ours: float
    ratio: float


def by_turns(peer: Callable[[], object], ours: Callable[[], object], *, rounds: int) -> Timing:
    """Both sides by turns. Seconds of the processor, which what else the machine does hardly moves:
    each side must do its work in this process, on one thread."""
    seconds = [(seconds_of(peer), seconds_of(ours)) for _ in range(rounds)]
    return Timing(
        *(statistics.median(side) for side in zip(*seconds, strict=True)),
        statistics.median(one / other for one, other in seconds),
    )


def measure(
    part: str,
    what: str,
    against: str,
    peer: Callable[[], object],
    ours: Callable[[], object],
    *,
    rounds: int,
    at_least: float | None,
    of_peer: float = 1.0,
) -> Ratio:
    """A ratio by turns; `of_peer` is the share of the work that the peer is asked for."""
    timing = by_turns(peer, ours, rounds=rounds)
    return Ratio(
        part,
        what,
        against,
        timing.peer / of_peer,
        timing.ours,
        "s",
        timing.ratio / of_peer,
        at_least,
        os.getloadavg()[0],
    )


def seconds_of(work: Callable[[], object]) -> float:
    """Of the processor."""
    gc.collect()
    started = time.process_time()
    work()
    return time.process_time() - started


def processor_seconds() -> float:
    """What this process and those that it has waited for have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def one_thread() -> Iterator[None]:
    """numba, BLAS and OpenMP on one thread each."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        numba.set_num_threads(threads)
