"""`make bench`: what is fast here, measured beside what a user would otherwise write.

Owns the order of things: the maps, the heads, the study, the trainings, the record, the growth;
what is said meanwhile. How each is measured is its own file's.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numba
import torch

from studies.bench import end_to_end, growth, heads, record, training
from studies.bench.maps import MapSet, validation_maps
from studies.bench.page import Bench, amount
from studies.bench.ratio import Ratio
from studies.session import Session, open_session
from studies.settings import Settings
from studies.study import find_study
from training.data import split
from training.device import device_summary

PARTS = ("heads", "study", "training", "record", "growth")
TRAINED_AT_LEAST = 2  # times the images a second of the script


@dataclass(frozen=True)
class Effort:
    """How much of each part is measured."""

    heads: heads.HeadEffort
    study: end_to_end.StudyEffort
    training: training.Effort
    record: record.RecordEffort
    growth: growth.GrowthEffort


FULL = Effort(heads.FULL, end_to_end.FULL, training.FULL, record.FULL, growth.FULL)
QUICK = Effort(heads.QUICK, end_to_end.QUICK, training.QUICK, record.QUICK, growth.QUICK)


def make_bench(
    settings: Settings, effort: Effort, parts: tuple[str, ...], say: Callable[[str], None]
) -> Bench:
    """Measure the parts; each ratio is said as soon as it is known."""
    session = open_session(find_study(end_to_end.STUDY), settings, say)
    bench = Bench(machine(session), [], [], [])
    say(bench.machine)
    sets = validation_maps(session) if set(parts) - {"training", "record"} else []
    searches = []
    if "study" in parts:
        searches = end_to_end.searches_by_turns(settings, sets[0], effort.study)
    for ratio in _ratios(session, sets, searches, effort, parts):
        bench.ratios.append(ratio)
        say(line(ratio))
    if "record" in parts:
        for limit in record.limits(settings, effort.record):
            bench.limits.append(limit)
            say(limit.sentence())
    if "growth" in parts:
        trials = searches[0].ours if searches else None
        bench.growth.extend(growth.growth(sets[0], trials, effort.growth))
    return bench


def _ratios(
    session: Session,
    sets: list[MapSet],
    searches: list[end_to_end.Searches],
    effort: Effort,
    parts: tuple[str, ...],
) -> Iterator[Ratio]:
    if "heads" in parts:
        yield from heads.head_ratios(sets, effort.heads)
    if searches:
        yield from end_to_end.study_ratios(searches, sets[0], effort.study)
    if "training" in parts:
        yield from training_ratios(session, effort.training)


def training_ratios(session: Session, effort: training.Effort) -> Iterator[Ratio]:
    """Each network's training beside the script's."""
    dataset = session.lab.dataset
    splits = split(
        dataset.labels,
        dataset.groups,
        protocol=session.settings.split,
        scheme="classifier",
        seed=session.settings.seed,
    )
    with TemporaryDirectory(prefix="bench-", dir=session.settings.root) as folder:
        for pair in training.pairs(dataset, splits, Path(folder), effort=effort):
            losses = f"{pair.ours.val_loss:.4g} and not {pair.peer.val_loss:.4g}"
            unjudged = "" if pair.is_judged else "; what it makes takes more seeds to judge"
            yield Ratio(
                "training",
                f"{pair.network}, images a second on a core{unjudged}",
                "ImageFolder, DataLoader and float32",
                pair.peer.images_per_second,
                pair.ours.images_per_second,
                "images/s",
                pair.ratio,
                TRAINED_AT_LEAST,
                pair.load,
                "" if pair.equally_good else f"the validation loss is {losses}",
            )


def machine(session: Session) -> str:
    """What it was measured on, as one sentence without its end."""
    summary = device_summary(torch.device("cpu"))
    lab = session.lab
    return (
        f"{summary['device_name']}, {os.cpu_count()} cores, {torch.get_num_threads()} threads of "
        f"torch and {numba.get_num_threads()} of numba (heads are timed on one), "
        f"{lab.dataset.name}, {len(lab.splits.val)} validation images, {lab.detector}"
    )


def line(ratio: Ratio) -> str:
    """One ratio as it is said."""
    stated = "" if ratio.at_least is None else f" (stated: {ratio.at_least:g})"
    missed = "" if ratio.kept else "  MISSED"
    return (
        f"{ratio.ratio:7.1f} x{stated}  {ratio.what}: {amount(ratio.ours, ratio.unit)} against "
        f"{amount(ratio.peer, ratio.unit)}{missed}"
    )
