"""How a study of generators ends: the best trial's samples beside the real test images, once.

Beside them stand real training images, the best that can be hoped for without copying, and one
image repeated. What was measured is kept, so that ending the same study again asks nothing new.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import FrozenTrial
from PIL import Image

from studies.finish import count_look, test_looks
from studies.generation_measures import (
    N_JUDGED,
    OBJECTIVE,
    TITLES,
    Generation,
    RealClass,
    draw,
    measure,
    real_of,
)
from studies.report import Section, as_page, examples, facts_table, markdown, search_plots
from studies.session import Session
from studies.storage import begun, best_feasible, is_feasible
from studies.study import News
from studies.summary import DISCLAIMER, as_rows, best_line, count_line

SHOWN = (
    "fid_brain_cnn",
    "precision_brain_cnn",
    "recall_brain_cnn",
    "ms_ssim",
    "feature_spread",
    "privacy",
)
MEASURES = {
    OBJECTIVE: "kernel distance to real test images, in the features of this split's classifier",
    "kid_efficientnet_lite0": "the same in the features of a network that knows photographs alone",
    "fid_brain_cnn": "Fréchet distance, in the classifier's features",
    "precision_brain_cnn": "share of samples among the real images",
    "recall_brain_cnn": "share of real images among the samples",
    "ms_ssim": "how alike two samples are; 1 is the same",
    "feature_spread": "how far apart samples lie; real images: 1",
    "privacy": "1: no nearer to training images than to those of other patients; 0: copies",
    "memorization_copies": "share of near-copies of a training image",
    "memorization_copies_held_out": "share of near-copies of a test image, which it has not seen",
}
REAL, REPEATED = "real training images", "one image repeated"
NOTE = (
    "The classifier was trained on the real training images and is surer of them than of others, "
    "so that in its features they may lie farther from test images than blurred samples do; the "
    "network that knows photographs alone punishes blur."
)


@dataclass(frozen=True)
class Generated:
    """What a study of generators ends with; without a feasible trial there are no rows."""

    name: str
    doc: str
    counts: dict
    n_infeasible: int
    best: FrozenTrial | None
    candidate: Generation | None
    rows: dict[str, dict[str, float]]  # the winner's measures on test, and what stands beside it
    pictures: dict[str, Image.Image]
    facts: dict[str, str]
    params: list[str]

    def words(self) -> str:
        """What was searched, what won, and whether it copies: Markdown without tables."""
        parts = [
            self.doc,
            count_line(self.counts, self.n_infeasible),
            best_line(self.best, OBJECTIVE),
            self._verdict(),
            f"*{DISCLAIMER}*",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def summary(self) -> str:
        """The words with the numbers on test and the facts below them."""
        parts = [f"## {self.name}", self.words(), self._table(), as_rows(self.facts)]
        return "\n\n".join(part.strip() for part in parts if part) + "\n"

    def metrics(self) -> dict[str, float]:
        """The winner's measures on test, named `test_*`."""
        return {f"test_{name}": value for name, value in self.rows.get(self.name, {}).items()}

    def page(self, trials: optuna.Study) -> str:
        """The report as HTML."""
        sections = [
            Section("result", "Result", markdown(self.words())),
            Section("beside", "Beside real images", markdown(self._table())),
            Section("search", "The search", search_plots(trials, self.params, OBJECTIVE)),
            Section("pictures", "Pictures", examples(captioned(self.pictures))),
            Section("facts", "Facts", facts_table(self.facts)),
        ]
        return as_page(self.name, sections)

    def write(self, folder: Path) -> None:
        """The pictures, and the measures on test."""
        for name, picture in self.pictures.items():
            picture.save(folder / f"{name}.png")
        (folder / "test_measures.json").write_text(json.dumps(self.rows, indent=1))

    def _verdict(self) -> str:
        if not self.rows:
            return ""
        own, real = self.rows[self.name], self.rows[REAL]
        return (
            f"**On test** its kernel distance to real images is {own[OBJECTIVE]:.3f}; real "
            f"training images have {real[OBJECTIVE]:.3f}, one image repeated "
            f"{self.rows[REPEATED][OBJECTIVE]:.3f}.\n\n"
            f"**Privacy** {own['privacy']:.2f}: {own['memorization_copies']:.1%} of the samples "
            f"are near-copies of a training image, {own['memorization_copies_held_out']:.1%} of a "
            "test image, which it has not seen."
        )

    def _table(self) -> str:
        if not self.rows:
            return ""
        lines = [
            "| on the test split | " + " | ".join(self.rows) + " | |",
            "| --- |" + " ---: |" * len(self.rows) + " --- |",
        ]
        for name, meaning in MEASURES.items():
            if all(name in row for row in self.rows.values()):
                values = " | ".join(f"{row[name]:.3f}" for row in self.rows.values())
                lines.append(f"| `{name}` | {values} | {meaning} |")
        return "\n".join([*lines, "", NOTE])


def conclude(session: Session, search: optuna.Study) -> Generated:
    """Measure the best feasible trial, and what stands beside it, against the test split."""
    best = best_feasible(search)
    candidate = session.study.fit(best.params, session.lab.of(best), News()) if best else None
    rows = measure_on_test(session, search, best, candidate) if best else {}
    trials = begun(search)
    seconds = sum(trial.duration.total_seconds() for trial in trials if trial.duration)
    return Generated(
        name=session.name,
        doc=session.study.doc,
        counts=dict(Counter(trial.state for trial in trials)),
        n_infeasible=sum(not is_feasible(trial) for trial in trials),
        best=best,
        candidate=candidate,
        rows=rows,
        pictures=draw(candidate, session.lab, real_of(session.lab).test) if best else {},
        facts={
            **session.facts(),
            "cost": f"{seconds:.0f} s in {len(trials)} trials",
            "test split": f"looked at {len(test_looks(search))} times in this study",
        },
        params=list(session.study.space),
    )


def measure_on_test(
    session: Session, search: optuna.Study, best: FrozenTrial, candidate: Generation
) -> dict[str, dict[str, float]]:
    """The winner's measures and those beside it: read where they are kept, else taken."""
    path = session.folder / "test" / f"measures_{best.number}.json"
    if not path.exists():
        count_look(search, best)
        lab, real = session.lab, real_of(session.lab).test
        rows = {
            name: measure(samples, real, seed=lab.seed)
            for name, samples in compared(session.name, candidate.samples(lab), real).items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows, indent=1))
    return json.loads(path.read_text())


def compared(
    name: str, samples: Mapping[int, np.ndarray], real: Mapping[int, RealClass]
) -> dict[str, dict[int, np.ndarray]]:
    """The sets that stand beside each other, of equal size."""
    every = {label: _spaced(one.train) for label, one in real.items()}
    return {
        name: dict(samples),
        REAL: every,
        REPEATED: {label: np.repeat(one[:1], N_JUDGED, axis=0) for label, one in every.items()},
    }


def _spaced(images: np.ndarray) -> np.ndarray:
    """As many as are measured, at even distances."""
    return images[np.linspace(0, len(images) - 1, min(N_JUDGED, len(images))).astype(int)]


def captioned(pictures: dict[str, Image.Image]) -> dict[str, Image.Image]:
    """Pictures by words: `samples_no` is "Samples, without a tumour"."""
    words = {}
    for name, picture in pictures.items():
        kind, _, of_class = name.rpartition("_")
        words[f"{kind.replace('_', ' ').capitalize()}, {TITLES[of_class]}"] = picture
    return words
