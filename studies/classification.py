"""Studies of classifiers: a candidate is a network trained on labels, and a threshold."""

from typing import NamedTuple

import numpy as np
from optuna.pruners import BasePruner
from PIL import Image

from studies.finish import conclude
from studies.space import Params, Space
from studies.study import Answers, Lab, News, Study, first_line
from training.classifier import ClassifierSpec, FittedClassifier, fit_classifier
from training.classifier_predictor import (
    HALF,
    Calibration,
    ClassifierPredictor,
    calibrate,
    decide,
)
from training.grids import ATTRIBUTION, choose_examples, sample_grid
from training.localization import Localization, localize, score_maps
from training.metrics import evaluate

N_EXAMPLES = 16


class Classification(NamedTuple):
    """A classifier, its calibration, and the probability from which on it calls a tumour."""

    classifier: FittedClassifier
    calibration: Calibration
    threshold: float

    @property
    def weights(self) -> dict[str, str]:
        """The key of the classifier's training."""
        return {"classifier": self.classifier.key}

    def predictor(self, lab: Lab) -> ClassifierPredictor:
        """Pre-processing, network and threshold in one."""
        fitted = self.classifier
        return ClassifierPredictor(
            preprocess=lab.dataset.preprocess,
            spec=fitted.spec,
            network=fitted.network,
            calibration=self.calibration,
            threshold=self.threshold,
            device=lab.device,
        )

    def answers(self, lab: Lab, part: str) -> Answers:
        """Calibrated log-odds of a tumour above those of the threshold."""
        indices = lab.indices(part)
        log_odds = (
            validation_scores(self.classifier, lab)
            if part == "val"
            else self.classifier.scores(indices)
        )
        scores = decide(log_odds, self.calibration, self.threshold)
        predicted = (scores >= 0).astype(np.int64)
        return Answers(lab.dataset.labels[indices], lab.dataset.groups[indices], scores, predicted)

    def localize(self, lab: Lab) -> Localization | None:
        """Attribution maps of the test split beside the outlines."""
        maps = self.classifier.attribution_maps(lab.splits.test)
        groups = lab.dataset.groups[lab.splits.test]
        return localize(maps, maps >= HALF, lab.outlines("test"), groups, seed=lab.seed)

    def pictures(self, lab: Lab) -> dict[str, Image.Image]:
        """Examples of the validation split."""
        return {"validation_samples": self.draw(lab, "val")}

    def draw(self, lab: Lab, part: str) -> Image.Image:
        """Sixteen images with attribution maps and, of those called tumour, the place."""
        answers, indices = self.answers(lab, part), lab.indices(part)
        chosen = choose_examples(answers.labels, answers.scores, n=N_EXAMPLES, seed=lab.seed)
        maps = self.classifier.attribution_maps(indices[chosen])
        predicted = answers.predicted[chosen]
        return sample_grid(
            lab.dataset.images[indices[chosen]],
            None,
            maps,
            (maps >= HALF) & (predicted == 1)[:, None, None],
            answers.labels[chosen],
            predicted,
            scores=answers.scores[chosen],
            outlines=lab.dataset.masks[indices[chosen]],
            words=ATTRIBUTION,
        )


def classifier_study(
    name: str,
    *,
    space: Space,
    fixed: dict[str, Params],
    doc: str,
    n_trials: int,
    pruner: BasePruner,
    first: tuple[Params, ...] = (),
) -> Study:
    """A study of a classifier's training and of its threshold.

    `fixed` is what each `variant` needs besides the parameters that are searched.
    """

    def fit(params: Params, lab: Lab, news: News) -> Classification:
        searched = {key: value for key, value in params.items() if key != "threshold"}
        spec = lab.in_batches(ClassifierSpec(fixed[params["variant"]] | searched, lab.seed))
        classifier = fit_classifier(
            spec,
            lab.splits,
            lab.store,
            precision=lab.precision,
            on_epoch=news.on_epoch,
            on_train=news.on_train,
        )
        labels = lab.dataset.labels[lab.splits.val]
        calibration = calibrate(validation_scores(classifier, lab), labels)
        return Classification(classifier, calibration, params["threshold"])

    return Study(
        name=name,
        doc=first_line(doc),
        space=space,
        fit=fit,
        score=score_classifier,
        conclude=conclude,
        kind="classifier",
        n_trials=n_trials,
        pruner=pruner,
        reported="val_auroc",
        first=first,
    )


def score_classifier(candidate: Classification, lab: Lab) -> dict[str, float]:
    """Every metric on the validation split, and how well the attribution maps find the place."""
    answers = candidate.answers(lab, "val")
    metrics = evaluate(answers.labels, answers.predicted, answers.scores)
    return {**metrics, **validation_places(candidate.classifier, lab)}


def validation_scores(classifier: FittedClassifier, lab: Lab) -> np.ndarray:
    """Log-odds of validation images; trials that share a training share them."""
    name = f"validation scores {classifier.answers_key}"
    return lab.once(name, lambda: classifier.scores(lab.splits.val))


def validation_places(classifier: FittedClassifier, lab: Lab) -> dict[str, float]:
    """How well the attribution maps agree with the outlines; {} where nothing is outlined."""
    outlined = lab.splits.val[lab.dataset.has_mask[lab.splits.val]]
    if not len(outlined):
        return {}
    return lab.once(
        f"validation places {classifier.answers_key}",
        lambda: score_maps(classifier.attribution_maps(outlined), lab.dataset.masks[outlined]),
    )
