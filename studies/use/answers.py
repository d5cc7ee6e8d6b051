"""Answers as they are read: a table, a CSV file, JSON.

Owns their columns and words. Knows nothing of models and of pictures.
"""

import csv
import json
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from studies.study import StudyError
from studies.summary import DISCLAIMER
from studies.use.slices import Unread

WORDS = ("no tumour", "tumour")
WIDEST = 60  # letters of a file's name in the table
COLUMNS = ("file", "label", "answer", "score", "margin", "problem", "note")


class Region(NamedTuple):
    """The suspected region in pixels of the image as it came, and the map's largest value in it."""

    left: int
    top: int
    width: int
    height: int
    peak: tuple[int, int]  # x, y


@dataclass(frozen=True)
class Answer:
    """What a model says of one slice."""

    name: str
    label: int  # 1 is tumour
    score: float
    margin: float  # NaN where there is none
    region: Region | None = None  # where overlays are drawn, and a tumour is seen
    overlay: Path | None = None


class Table:
    """A line an image, as answers come."""

    def __init__(self, names: list[str], unit: str):
        self.width = min(max(map(len, ("file", *names))), WIDEST)
        self.unit = unit

    def head(self) -> str:
        """What stands above the columns."""
        return f"{'file':<{self.width}}  {'answer':<9}  {'score':>9}  {'margin':>8}"

    def row(self, answer: Answer) -> str:
        """One answer; a name that is too long keeps its end."""
        name = answer.name if len(answer.name) <= WIDEST else f"...{answer.name[3 - WIDEST :]}"
        margin = "-" if math.isnan(answer.margin) else f"{answer.margin:+.1f}"
        said = f"{WORDS[answer.label]:<9}  {answer.score:>+9.4f}  {margin:>8}"
        return f"{name:<{self.width}}  {said}"

    def foot(self, model: str, labels: list[int], n_unread: int) -> str:
        """How many, and how to read the columns."""
        n, n_tumors = len(labels), sum(labels)
        unread = f"; {n_unread} could not be read" if n_unread else ""
        return (
            f"\n{n} images: {n_tumors} tumour, {n - n_tumors} no tumour{unread}. Model: {model}\n"
            "score: a tumour where it is 0 or more. margin: how far beyond (+) or short of (-) the "
            f"threshold, in {self.unit}.\n{DISCLAIMER}"
        )


class CsvFile:
    """A row an image and a row a file that could not be read; written as answers come."""

    def __init__(self, file: TextIO):
        self._rows = csv.DictWriter(file, COLUMNS)
        self._rows.writeheader()

    def add(self, answers: list[Answer], unread: list[Unread]) -> None:
        """Write a batch."""
        for answer in answers:
            row = {"file": answer.name, "label": answer.label, "answer": WORDS[answer.label]}
            margin = "" if math.isnan(answer.margin) else answer.margin
            self._rows.writerow(row | {"score": answer.score, "margin": margin, "note": DISCLAIMER})
        for name, problem in unread:
            self._rows.writerow({"file": name, "problem": problem, "note": DISCLAIMER})


def open_csv(path: Path | None) -> AbstractContextManager[TextIO | None]:
    """The file to write rows to, or none; StudyError where it cannot be written."""
    if path is None:
        return nullcontext()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise StudyError(f"CSV cannot be written to {path} ({error.strerror}).") from error


def as_json(model: str, unit: str, answers: list[Answer], unread: list[Unread]) -> str:
    """All answers as one JSON object."""
    said = {
        "note": DISCLAIMER,
        "model": model,
        "margin_unit": unit,
        "predictions": [_as_dict(answer) for answer in answers],
        "unread": [{"file": name, "problem": reason} for name, reason in unread],
    }
    return json.dumps(said, indent=1)


def _as_dict(answer: Answer) -> dict[str, object]:
    said = {
        "file": answer.name,
        "label": answer.label,
        "answer": WORDS[answer.label],
        "score": answer.score,
        "margin": None if math.isnan(answer.margin) else answer.margin,
    }
    if answer.overlay is not None:
        said["overlay"] = str(answer.overlay)
        said["region"] = answer.region and answer.region._asdict()
    return said
