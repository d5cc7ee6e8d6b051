"""Studies of detectors: a candidate is a detector with a head on its validation error maps.

Two kinds: of a head's parameters over one detector's maps, and of how a detector is trained.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from optuna.pruners import BasePruner
from PIL import Image
from sklearn.base import ClassifierMixin

from models.heads.giaem import best_giaem
from studies.finish import conclude
from studies.space import Params, Space
from studies.study import Answers, Lab, News, Study, first_line
from training.detector import FittedDetector, map_auroc
from training.grids import choose_examples, sample_grid
from training.localization import Localization, localize, score_masks
from training.metrics import evaluate
from training.predictor import Predictor

N_EXAMPLES = 16


class Detection(NamedTuple):
    """A detector and a head fitted on its validation error maps."""

    detector: FittedDetector
    head: ClassifierMixin

    @property
    def weights(self) -> dict[str, str]:
        """The key of the detector's fit."""
        return {"detector": self.detector.key}

    def predictor(self, lab: Lab) -> Predictor:
        """Pre-processing, network and head in one."""
        detector = self.detector
        return Predictor(
            lab.dataset.preprocess, detector.spec, detector.mapper, self.head, lab.device
        )

    def answers(self, lab: Lab, part: str) -> Answers:
        """The head's scores and its answers: `predict` without its cost."""
        maps = lab.maps(self.detector, part)
        scores = self.head.decision_function(lab.kept_maps(self.detector, part))
        return Answers(maps.labels, maps.groups, scores, (scores >= 0).astype(np.int64))

    def places(self, lab: Lab) -> dict[str, float]:
        """How well the head's validation masks agree with the outlines; {} where there are none."""
        outlines = lab.outlines("val")
        if not len(outlines):
            return {}
        return score_masks(self.head.mask(lab.kept_maps(self.detector, "val")), outlines)

    def localize(self, lab: Lab) -> Localization | None:
        """Maps and masks of the test split beside the outlines."""
        maps = lab.maps(self.detector, "test")
        predicted = self.head.mask(lab.kept_maps(self.detector, "test"))
        return localize(maps.values, predicted, lab.outlines("test"), maps.groups, seed=lab.seed)

    def pictures(self, lab: Lab) -> dict[str, Image.Image]:
        """Examples of the validation split."""
        return {"validation_samples": self.draw(lab, "val")}

    def draw(self, lab: Lab, part: str, n: int = N_EXAMPLES) -> Image.Image:
        """n images with reconstruction, error map and what the head calls tumour."""
        answers, indices = self.answers(lab, part), lab.indices(part)
        chosen = choose_examples(answers.labels, answers.scores, n=n, seed=lab.seed)
        values = lab.maps(self.detector, part).values[chosen]
        return sample_grid(
            lab.dataset.images[indices[chosen]],
            self.detector.reconstructions(indices[chosen]),
            values,
            self.head.mask(values),
            answers.labels[chosen],
            answers.predicted[chosen],
            scores=answers.scores[chosen],
            outlines=lab.dataset.masks[indices[chosen]],
        )


def head_study(
    name: str,
    head: type[ClassifierMixin],
    *,
    space: Space,
    doc: str,
    first: tuple[Params, ...] = (),
) -> Study:
    """A study of a head's parameters over one detector's error maps.

    Parameters that are not the head's are the detector's hyperparameters; without any, the
    detector has its defaults and a whole study trains one network.
    """
    names = set(head().get_params())

    def fit(params: Params, lab: Lab, news: News) -> Detection:
        own = {key: value for key, value in params.items() if key in names}
        rest = {key: value for key, value in params.items() if key not in names}
        detector = lab.fit_detector(rest, news)
        seeded = {"seed": lab.seed} if "seed" in names else {}
        return Detection(detector, head(**own, **seeded).fit(lab.kept_maps(detector, "val")))

    return Study(name, first_line(doc), space, fit, score_head, conclude, first=first)


def detector_study(
    name: str, *, space: Space, doc: str, n_trials: int, pruner: BasePruner
) -> Study:
    """A study of a detector's training: AUROC of its error maps, and the best GIAEM head on them.

    The objective needs no threshold, so that it ranks networks and not luck with a threshold; the
    exact best GIAEM head gives the decision metrics beside it.
    """

    def fit(params: Params, lab: Lab, news: News) -> Detection:
        detector = replace(lab, detector=name).fit_detector(params, news)
        labels = lab.validation_maps(detector).labels
        return Detection(detector, best_giaem(lab.kept_maps(detector, "val"), labels))

    return Study(
        name=name,
        doc=first_line(doc),
        space=space,
        fit=fit,
        score=score_detector,
        conclude=conclude,
        metric="map_auroc",
        n_trials=n_trials,
        pruner=pruner,
        reported="val_auroc",
    )


def score_head(candidate: Detection, lab: Lab) -> dict[str, float]:
    """Every metric of the fitted head on the validation split, and how well it finds the place."""
    answers = candidate.answers(lab, "val")
    return {
        **evaluate(answers.labels, answers.predicted, answers.scores),
        **lab.validation_places(candidate.detector),
        **candidate.places(lab),
    }


def score_detector(candidate: Detection, lab: Lab) -> dict[str, float]:
    """`map_auroc`, what the maps are worth without a head, beside the best GIAEM head's metrics."""
    maps = lab.validation_maps(candidate.detector)
    return {"map_auroc": map_auroc(maps.values, maps.labels), **score_head(candidate, lab)}
