"""What a model's answers elsewhere are worth, in words: no number is computed here."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from studies.external_images import SHIFTED, Shift
from studies.summary import DISCLAIMER

COLUMNS = (
    "f2",
    "recall",
    "specificity",
    "specificity_at_95_recall",
    "auroc",
    "auprc",
    "accuracy",
    "macro_f1",
)
# What does not change with the share of tumours, which a folder has of its own.
COMPARABLE = ("f2", "recall", "specificity", "specificity_at_95_recall", "auroc")
Worth = dict[str, tuple[float, ...]]  # metric -> value, and the bounds of its 95 % interval


@dataclass(frozen=True)
class Result:
    """All that is said of one model on one folder."""

    model: str
    folder: Path
    n_images: int
    unreadable: list[str]
    n_copies: int  # of images that the model was trained or tuned on: left out
    n_test_copies: int  # of images of its study's test split: kept
    answers: pd.DataFrame  # file, label, score, predicted, group
    worth: Worth
    on_test: Worth
    shift: Shift
    compared: str  # which of the folder's images the grey values were taken of


def write_words(result: Result) -> str:
    """Markdown that stands alone."""
    parts = [
        f"## {result.model} on {result.folder.name}",
        say_images(result),
        table(result),
        say_drop(result),
        say_shift(result.shift, result.compared),
        say_classes(result),
        f"*{DISCLAIMER}*",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def say_images(result: Result) -> str:
    """What was answered, and what was left out."""
    n_groups = result.answers.group.nunique()
    sentences = [
        f"**{len(result.answers)} images in {n_groups} groups of near-copies were answered**, of "
        f"{result.n_images} in `{result.folder}`."
    ]
    if result.n_copies:
        sentences.append(
            f"{result.n_copies} were left out: near-copies of images that the model was trained or "
            "tuned on."
        )
    else:
        sentences.append("None is a near-copy of an image that the model was trained or tuned on.")
    if result.n_test_copies:
        sentences.append(
            f"{result.n_test_copies} are near-copies of its study's test images: not seen in "
            "training, but not new."
        )
    if result.unreadable:
        shown = "; ".join(result.unreadable[:5])
        sentences.append(f"{len(result.unreadable)} could not be read ({shown}).")
    return " ".join(sentences)


def table(result: Result) -> str:
    """The metrics here beside those of the study's test split."""
    lines = ["| metric | here | its study's test split |", "| --- | ---: | ---: |"]
    for name in COLUMNS:
        if name in result.worth:
            there = cell(result.on_test[name]) if name in result.on_test else ""
            lines.append(f"| {name} | {cell(result.worth[name])} | {there} |")
    share = (result.answers.label == 1).mean()
    note = (
        "95 % intervals from a bootstrap over groups of near-copies. AUPRC, accuracy and macro_f1 "
        f"change with the share of tumours too, which is {share:.0%} here: they are not compared."
    )
    if not result.on_test:
        note += " The study's own test metrics are those of another trial by now and are not shown."
    return "\n".join(lines) + f"\n\n{note}"


def cell(worth: tuple[float, ...]) -> str:
    """`0.912 (0.850 to 0.961)`, or the value alone."""
    value, *bounds = worth
    return f"{value:.3f}" + (f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if bounds else "")


def say_drop(result: Result) -> str:
    """Whether it does worse here: where the whole interval lies below the test split's value."""
    worse = [
        name
        for name in COMPARABLE
        if name in result.worth
        and name in result.on_test
        and result.worth[name][2] < result.on_test[name][0]
    ]
    if not result.on_test:
        return ""
    if worse:
        return (
            f"**It does worse here** in {', '.join(worse)}: the whole interval lies below what its "
            "study's test split gave."
        )
    return (
        "**It is not shown to do worse here**: no interval lies whole below what its study's test "
        "split gave."
    )


def say_shift(shift: Shift, compared: str) -> str:
    """Whether the grey values differ from those of the healthy training images."""
    text = (
        f"the foreground's mean grey value is {shift.external[0]:.0f} ± {shift.external[1]:.0f} "
        f"over the {compared} images here and {shift.known[0]:.0f} ± {shift.known[1]:.0f} over the "
        f"healthy images it was trained on (standardised difference {shift.difference:+.2f}, "
        f"Kolmogorov-Smirnov distance {shift.distance:.2f})"
    )
    caution = (
        " The folder has no healthy images, so that tumours may be the difference."
        if compared == "tumour"
        else ""
    )
    if not shift.is_large:
        return f"**Intensities are alike**: {text}; below {SHIFTED:g} standard deviations.{caution}"
    if not shift.is_certain:
        return (
            f"**Intensities may be shifted**: {text}, but so few groups can differ as much by "
            f"chance.{caution}"
        )
    return (
        f"**Intensities are shifted**: {text}. A threshold chosen there need not fit here; a study "
        f"with `intensity` searched may.{caution}"
    )


def say_classes(result: Result) -> str:
    """What one class cannot show."""
    labels = set(result.answers.label)
    if len(labels) == 2:
        return ""
    held, missing = ("tumour", "specificity") if labels == {1} else ("healthy", "recall")
    return (
        f"**The folder holds {held} images alone**: how many of them are answered right is all "
        f"that it can show, and a model that says so of every image is right each time. Nothing "
        f"is known of the {missing} here."
    )
