"""The test images that winners answer differently, and which of them are worth a look.

Knows answers and images, and not how they are laid out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from studies.compare.same_images import TestSet
from studies.external import find_dataset

MOST_SHOWN = 24


@dataclass(frozen=True)
class Disagreements:
    """The images of one set of test images that are not answered alike."""

    names: list[str]  # the studies
    table: pd.DataFrame  # a row an image: file, label, group, fewer, sureness, answers
    shown: pd.DataFrame  # the rows that are worth a look
    images: dict[str, np.ndarray]  # uint8 (128, 128) by file; empty where they are not at hand
    missing: str  # why there are no images


def find_disagreements(tests: TestSet, root: Path) -> Disagreements:
    """Where the winners of a set differ, with the images that are to be shown."""
    table = differing(tests)
    shown = worth_a_look(table)
    data = tests.contestants[0].data
    images = read_images(data, shown["file"], root) if len(shown) else {}
    missing = (
        ""
        if images or shown.empty
        else f"The images ({data['name']}, digest {data['digest']}) are not below {root}, so only "
        "their names are given: run any `make study` with this DATA here once to see them."
    )
    return Disagreements([one.name for one in tests.contestants], table, shown, images, missing)


def differing(tests: TestSet) -> pd.DataFrame:
    """A row for each image that is not answered alike by all: those on which the winners are split
    most evenly first, and of these the surest opposites.

    How sure a study is of an answer is the rank of its score's distance from the decision among
    all images (0 to 1), so that scores of different kinds can stand beside each other; `sureness`
    is that of the less sure of the two surest opposite answers.
    """
    first = tests.scored[0]
    table = pd.DataFrame({"file": tests.files, "label": first.labels, "group": first.groups})
    sure = []
    for scored in tests.scored:
        table[scored.name] = scored.predicted
        sure.append(pd.Series(np.abs(scored.scores)).rank(pct=True).to_numpy())
    answers = np.stack([scored.predicted for scored in tests.scored])  # (n_studies, n_images)
    surest = [np.where(answers == label, sure, 0).max(axis=0) for label in (0, 1)]
    table.insert(3, "sureness", np.minimum(*surest))
    fewer = np.minimum(answers.sum(axis=0), (1 - answers).sum(axis=0))
    table.insert(3, "fewer", fewer)  # winners with the rarer answer
    order = ["fewer", "sureness"]
    return table[fewer > 0].sort_values(order, ascending=False, kind="stable", ignore_index=True)


def worth_a_look(table: pd.DataFrame, n: int = MOST_SHOWN) -> pd.DataFrame:
    """The first image of each group of near-copies, as many of either class as there are places."""
    firsts = table.drop_duplicates("group")
    of_class = {label: firsts[firsts.label == label] for label in (0, 1)}
    room = {label: max(n // 2, n - len(of_class[1 - label])) for label in (0, 1)}
    chosen = pd.concat([of_class[label].head(room[label]) for label in (1, 0)])
    return chosen.reset_index(drop=True)


def read_images(data: dict[str, str], files: pd.Series, root: Path) -> dict[str, np.ndarray]:
    """The prepared images of these names; none where the data is not at hand."""
    dataset = find_dataset(data["name"], data["digest"], root)
    if dataset is None:
        return {}
    rows = pd.Series(np.arange(len(dataset.images)), index=dataset.manifest["file"])
    return {file: dataset.images[rows[file]] for file in files}
