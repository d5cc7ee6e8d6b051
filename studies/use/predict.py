"""A registered model's answers to files: `make predict`.

Owns the order of things: files, the model, batches of slices, what is said and written. Memory does
not grow with the number of files, but for a line of each answer.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from studies.settings import Settings
from studies.study import StudyError
from studies.use.answers import Answer, CsvFile, Table, as_json, open_csv
from studies.use.files import Named, find_files
from studies.use.model import OpenModel, open_model
from studies.use.overlay import draw_overlay, find_region
from studies.use.slices import ALL, Slice, Unread, Which, read_slices

FILES_AT_A_TIME = 64
PICTURES_AT_A_TIME = 16  # where originals are kept until they are drawn, or files hold volumes
SAID_EVERY = 10.0  # seconds, where no bar can be drawn
READ, PARTLY_READ = 0, 1  # exit statuses


@dataclass(frozen=True)
class Wish:
    """What is asked for beside the answers."""

    which: Which  # slices of a volume
    csv: Path | None
    overlays: Path | None  # a folder for pictures


@dataclass(frozen=True)
class Said:
    """All that was said of a batch of files."""

    answers: list[Answer]
    unread: list[Unread]


def print_table(words: Sequence[str], model_uri: str, wish: Wish, settings: Settings) -> int:
    """Answer as a table on stdout; returns the exit status."""
    files = find_files(words)
    model = open_model(model_uri, settings)
    table = Table([file.name for file in files], model.predictor.margin_unit)
    labels, n_unread = [], 0
    print(table.head())
    for said in answer_files(files, model, wish):
        for answer in said.answers:
            print(table.row(answer))
        labels += [answer.label for answer in said.answers]
        n_unread += len(said.unread)
    _check_some(len(labels))
    print(table.foot(model.uri, labels, n_unread))
    return PARTLY_READ if n_unread else READ


def print_json(words: Sequence[str], model_uri: str, wish: Wish, settings: Settings) -> int:
    """Answer as JSON and nothing else on stdout; returns the exit status."""
    answers, unread = [], []
    with redirect_stdout(sys.stderr):
        files = find_files(words)
        model = open_model(model_uri, settings)
        for said in answer_files(files, model, wish):
            answers += said.answers
            unread += said.unread
    _check_some(len(answers))
    print(as_json(model.uri, model.predictor.margin_unit, answers, unread))
    return PARTLY_READ if unread else READ


def answer_files(files: list[Named], model: OpenModel, wish: Wish) -> Iterator[Said]:
    """Answers to the files, a batch at a time; what cannot be read is said on stderr."""
    if model.remark:
        print(model.remark, file=sys.stderr)
    size = PICTURES_AT_A_TIME if wish.overlays or wish.which == ALL else FILES_AT_A_TIME
    read = partial(read_slices, which=wish.which, preprocess=model.predictor.preprocess)
    with (
        open_csv(wish.csv) as file,
        ThreadPoolExecutor(torch.get_num_threads()) as pool,
        count_files(len(files)) as advance,
    ):
        rows = CsvFile(file) if file else None
        for batch in (files[start : start + size] for start in range(0, len(files), size)):
            found = [each for of_file in pool.map(read, batch) for each in of_file]
            unread = [each for each in found if isinstance(each, Unread)]
            for name, reason in unread:
                print(f"{name}: {reason}.", file=sys.stderr)
            slices = [each for each in found if isinstance(each, Slice)]
            said = Said(ask(slices, model, wish) if slices else [], unread)
            if rows:
                rows.add(said.answers, said.unread)
            yield said
            advance(len(batch))


def ask(slices: list[Slice], model: OpenModel, wish: Wish) -> list[Answer]:
    """The model's answers to slices, with pictures where they are wished for."""
    frames, predictor = np.stack([each.frame for each in slices]), model.predictor
    explained = predictor.explain(frames) if wish.overlays else None
    table = explained.answers if explained else predictor.answer(frames)
    scores = table["score"].to_numpy()
    columns = zip(slices, table["label"], scores, predictor.margins(scores), strict=True)
    answers = [
        Answer(each.name, int(label), float(score), float(margin))
        for each, label, score, margin in columns
    ]
    if explained is None:
        return answers
    drawn = zip(slices, explained.maps, explained.masks, answers, strict=True)
    return [_with_picture(*each, model, wish.overlays) for each in drawn]


def _with_picture(
    slice_: Slice,
    map_: np.ndarray,
    mask: np.ndarray,
    answer: Answer,
    model: OpenModel,
    folder: Path,
) -> Answer:
    """The answer with its region, and the picture of it written."""
    predictor = model.predictor
    region = find_region(slice_, map_, mask) if answer.label else None
    answer = replace(answer, region=region)
    margin = "" if np.isnan(answer.margin) else f", {answer.margin:+.1f} {predictor.margin_unit}"
    said = f"score {answer.score:+.4f}{margin}"
    picture = draw_overlay(slice_, map_, mask, answer, map_name=predictor.map_name, said=said)
    path = folder / f"{slice_.place}.png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise StudyError(f"OVERLAY cannot be written to {path} ({error.strerror}).") from error
    return replace(answer, overlay=path)


@contextmanager
def count_files(total: int):
    """A bar on a terminal, a line every few seconds elsewhere; both on stderr."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("images", total=total)
            yield partial(bar.advance, task)
        return
    done, began = 0, time.monotonic()
    last = began

    def advance(n: int) -> None:
        nonlocal done, last
        done, now = done + n, time.monotonic()
        if now - last >= SAID_EVERY:
            last = now
            pace = done / (now - began)
            print(f"{done} of {total} files, {pace:.1f} a second", file=sys.stderr, flush=True)

    yield advance


def _check_some(n_answers: int) -> None:
    if not n_answers:
        raise StudyError("No image could be read, so that nothing was asked.")
