"""What a trial of a generator makes, and what its images are worth beside real ones.

A candidate is a network a class. Its samples are held against the real images of validation, and
at the end of a study of test, in the features of a classifier that was trained on the real training
split. Knows nothing of what is searched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from models.backbones import LITE, is_installed
from studies.study import Lab
from training.classifier import PRETRAINED, ClassifierSpec, fit_classifier
from training.fidelity import Comparison, Judge, classifier_judge, lite_judge, variety
from training.generator import FittedGenerator, GeneratorSpec
from training.generator_bundle import CLASSES, GeneratorBundle
from training.generator_grids import (
    closest_pairs,
    interpolation_strip,
    neighbor_sheet,
    sample_sheet,
    training_sheet,
)
from training.memorization import Memorization, MemorizationTest, turned

N_JUDGED = 256  # samples a class that are measured; our choice
N_SHOWN, N_PAIRS, N_STEPS = 16, 4, 9  # neighbours, closest pairs, interpolation in pictures
OBJECTIVE = "kid_brain_cnn"
TITLES = {"no": "without a tumour", "yes": "with a tumour"}


class RealClass(NamedTuple):
    """The real images of one class that samples are held against."""

    train: np.ndarray  # uint8 (n, h, w)
    train_groups: np.ndarray
    held_out: np.ndarray  # of the part that is asked about
    held_out_groups: np.ndarray
    comparisons: list[Comparison]  # the first one's kernel distance is the objective
    memorization: MemorizationTest


@dataclass(frozen=True)
class Real:
    """Everything real that generators are held against, made when it is first needed."""

    lab: Lab
    judges: list[Judge] = field(repr=False)

    @classmethod
    def of(cls, lab: Lab) -> "Real":
        """With the classifier of this split as the first judge."""
        judges = [classifier_of_split(lab), lite_judge(lab.device)]
        return cls(lab, [judge for judge in judges if judge is not None])

    @cached_property
    def val(self) -> dict[int, RealClass]:
        """Against the validation split."""
        return self._against("val")

    @cached_property
    def test(self) -> dict[int, RealClass]:
        """Against the test split, for the end of a study alone."""
        return self._against("test")

    def _against(self, part: str) -> dict[int, RealClass]:
        return {label: self._class(label, part) for label in CLASSES}

    def _class(self, label: int, part: str) -> RealClass:
        dataset, seed = self.lab.dataset, self.lab.seed
        train, held_out = (
            indices[dataset.labels[indices] == label]
            for indices in (self.lab.splits.train, self.lab.indices(part))
        )
        images, groups = dataset.images, dataset.groups
        return RealClass(
            train=images[train],
            train_groups=groups[train],
            held_out=images[held_out],
            held_out_groups=groups[held_out],
            comparisons=[
                Comparison.of(images[held_out], judge, seed=seed, groups=groups[held_out])
                for judge in self.judges
            ],
            memorization=MemorizationTest.of(
                images[train],
                images[held_out],
                train_groups=groups[train],
                held_out_groups=groups[held_out],
                judge=self.judges[-1],
                seed=seed,
            ),
        )


def classifier_of_split(lab: Lab) -> Judge:
    """What a classifier of the real training split sees; trained at most once for each split.

    One that begins with pretrained weights, where they are installed.
    """

    def on_train() -> None:
        lab.store.say("Training the classifier whose features judge the samples, once ...")

    spec = ClassifierSpec(PRETRAINED if is_installed(LITE) else {}, lab.seed)
    fitted = fit_classifier(spec, lab.splits, lab.store, precision=lab.precision, on_train=on_train)
    return classifier_judge(fitted.network, lab.device)


class Generation(NamedTuple):
    """A fitted generator a class."""

    spec: GeneratorSpec
    fitted: Mapping[int, FittedGenerator]  # label -> generator

    @property
    def weights(self) -> dict[str, str]:
        """The key of each class's fit."""
        return {CLASSES[label]: fitted.key for label, fitted in self.fitted.items()}

    def predictor(self, lab: Lab) -> GeneratorBundle:
        """Both networks in one."""
        networks = {label: fitted.network for label, fitted in self.fitted.items()}
        return GeneratorBundle(lab.dataset.preprocess, self.spec, networks, lab.device)

    def samples(self, lab: Lab) -> dict[int, np.ndarray]:
        """What is measured and shown: equal seeds, equal samples."""
        return {label: one.sample(N_JUDGED, lab.seed) for label, one in self.fitted.items()}

    def pictures(self, lab: Lab) -> dict[str, Image.Image]:
        """Samples, training, interpolation, and the nearest real images of validation."""
        return draw(self, lab, real_of(lab).val)


def real_of(lab: Lab) -> Real:
    """What is real, made once a study."""
    return lab.once("real images", lambda: Real.of(lab))


def measure(samples: Mapping[int, np.ndarray], real: Mapping[int, RealClass], *, seed: int) -> dict:
    """Every measure of samples of both classes against real images.

    The mean of the classes, but for `privacy`, which is the worse of the two; `no_` and `yes_`
    before a name are a class's own.
    """
    by_class = {label: measure_class(samples[label], real[label], seed=seed) for label in samples}
    names = next(iter(by_class.values()))
    metrics = {name: float(np.mean([one[name] for one in by_class.values()])) for name in names}
    metrics["privacy"] = min(one["privacy"] for one in by_class.values())
    own = {
        f"{CLASSES[label]}_{name}": one[name]
        for label, one in by_class.items()
        for name in (OBJECTIVE, "privacy")
    }
    return metrics | own


def measure_class(samples: np.ndarray, real: RealClass, *, seed: int) -> dict[str, float]:
    """Distances, variety and memorisation of one class's samples."""
    distances = {}
    for comparison in real.comparisons:
        distances |= comparison.fidelity(samples)
    spread = real.comparisons[0].feature_spread(samples)
    memorized = real.memorization.ask(samples)
    return distances | variety(samples, seed=seed) | {"feature_spread": spread} | memorized.metrics


def score_generator(candidate: Generation, lab: Lab) -> dict[str, float]:
    """Every measure against the validation split."""
    return measure(candidate.samples(lab), real_of(lab).val, seed=lab.seed)


def draw(candidate: Generation, lab: Lab, real: Mapping[int, RealClass]) -> dict[str, Image.Image]:
    """The pictures of both classes by name."""
    pictures = {}
    for label, samples in candidate.samples(lab).items():
        name, fitted = CLASSES[label], candidate.fitted[label]
        title = f"{candidate.spec.name}, slices {TITLES[name]}"
        frames = fitted.interpolate(lab.seed, lab.seed + 1, N_STEPS)
        pictures |= {
            f"samples_{name}": sample_sheet(samples[:32], title),
            f"training_{name}": training_sheet(fitted.progress(), f"{title}, as training goes on"),
            f"interpolation_{name}": interpolation_strip(frames, f"{title}, from one to another"),
            **draw_neighbors(samples, real[label], name, title),
        }
    return pictures


def draw_neighbors(
    samples: np.ndarray, real: RealClass, name: str, title: str
) -> dict[str, Image.Image]:
    """Sixteen samples beside their nearest real images, and the most suspicious pairs."""
    found: Memorization = real.memorization.ask(samples)
    near = found.neighbors
    shown, closest = np.arange(min(N_SHOWN, len(samples))), near.closest(N_PAIRS)
    return {
        f"neighbors_{name}": neighbor_sheet(
            samples[shown],
            turned(real.train[near.train[shown]], near.train_flip[shown]),
            turned(real.held_out[near.held_out[shown]], near.held_out_flip[shown]),
            to_train=near.to_train[shown],
            to_held_out=near.to_held_out[shown],
            title=f"{title}, beside the nearest real ones",
            is_copy=near.memorized[shown],
        ),
        f"closest_pairs_{name}": closest_pairs(
            samples[closest],
            turned(real.train[near.train[closest]], near.train_flip[closest]),
            distances=near.to_train[closest],
            title=f"{title}, nearest to training",
        ),
    }
