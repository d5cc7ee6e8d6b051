"""Which detector, seen how, with which decision: one search over all of them.

Detectors that are trained get a short training here: enough to see whether they are worth a study
of their own. Thresholds are not searched where their best value on validation can be computed.
"""

from dataclasses import replace

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution
from sklearn.base import ClassifierMixin

from models.ensemble import AFTER_FIT as WEIGHTS
from models.heads import HEADS, KeptMaps, MapScore
from models.heads.giaem import best_giaem
from studies.dbscan import STUDY as DBSCAN
from studies.detection import Detection, score_head
from studies.finish import conclude
from studies.global_kmeans import STUDY as GLOBAL_KMEANS
from studies.space import Params, When
from studies.study import Lab, News, Study, first_line
from training.detector import DetectorSpec
from training.floors import best_threshold

# Our choice: the whole search fits into a quarter of an hour. So are an ensemble's parts.
SHORT_TRAINING = {"n_epochs": 6, "member_epochs": 6}
SPECIFICITY_FLOOR = 0.5

SPACE = {
    "detector": CategoricalDistribution(
        [
            "patch_features",
            "ensemble",
            "synthetic_lesions",
            "denoising_autoencoder",
            "autoencoder",
            "brain_cvae",
        ]
    ),
    "method": When(
        CategoricalDistribution(["position", "patchcore", "padim"]),
        "detector",
        ("patch_features",),
    ),
    "layers": When(
        CategoricalDistribution(["deep", "both", "shallow"]), "detector", ("patch_features",)
    ),
    "metric": When(
        CategoricalDistribution(["whitened", "scaled"]), "detector", ("patch_features",)
    ),
    "intensity": When(
        CategoricalDistribution(["none", "zscore", "histogram"]), "detector", ("patch_features",)
    ),
    **{name: When(FloatDistribution(0.0, 1.0), "detector", ("ensemble",)) for name in WEIGHTS},
    "flips": CategoricalDistribution(["none", "horizontal", "all"]),
    "smoothing": FloatDistribution(0.0, 8.0),
    "brain_mask": CategoricalDistribution([False, True]),
    "scaling": CategoricalDistribution(["healthy", "image"]),
    "head": CategoricalDistribution(
        ["map_score", "giaem", "global_kmeans", "image_kmeans", "dbscan"]
    ),
    "statistic": When(CategoricalDistribution(["max", "p99", "mean"]), "head", ("map_score",)),
    "anomaly_threshold": When(GLOBAL_KMEANS.space["anomaly_threshold"], "head", ("global_kmeans",)),
    "alpha": When(GLOBAL_KMEANS.space["alpha"], "head", ("global_kmeans",)),
    "eps": When(DBSCAN.space["eps"], "head", ("dbscan",)),
    "min_samples": When(DBSCAN.space["min_samples"], "head", ("dbscan",)),
    "tumor_index": When(DBSCAN.space["tumor_index"], "head", ("dbscan", "image_kmeans")),
}

# Where the search begins: the recipe of models.patch_features as it stands.
FIRST = {
    "detector": "patch_features",
    "method": "position",
    "layers": "deep",
    "metric": "whitened",
    "intensity": "none",
    "flips": "all",
    "smoothing": 4.0,
    "brain_mask": False,
    "scaling": "healthy",
    "head": "map_score",
    "statistic": "max",
}


def fit(params: Params, lab: Lab, news: News) -> Detection:
    """The detector of a point, and its head on the validation maps."""
    name = params["detector"]
    known = DetectorSpec(name).complete().hyperparameters
    hyperparameters = {key: params[key] for key in params if key in known}
    hyperparameters |= {key: n for key, n in SHORT_TRAINING.items() if key in known}
    detector = replace(lab, detector=name).fit_detector(hyperparameters, news)
    labels = lab.validation_maps(detector).labels
    return Detection(
        detector, fit_head(params, lab.kept_maps(detector, "val"), labels, seed=lab.seed)
    )


def fit_head(params: Params, maps: KeptMaps, labels: np.ndarray, *, seed: int) -> ClassifierMixin:
    """The head of a point; the best threshold where it can be computed."""
    if params["head"] == "giaem":
        return best_giaem(maps, labels, specificity_floor=SPECIFICITY_FLOOR)
    if params["head"] == "map_score":
        return best_map_score(params["statistic"], maps, labels)
    head = HEADS[params["head"]]()
    known = head.get_params()
    chosen = {key: params[key] for key in params if key in known}
    seeded = {"seed": seed} if "seed" in known else {}
    return head.set_params(**chosen, **seeded).fit(maps)


def best_map_score(statistic: str, maps: KeptMaps, labels: np.ndarray) -> MapScore:
    """The map score with the threshold that has the best feasible F2 on these maps."""
    scores = MapScore(statistic, threshold=0.0).fit(maps).decision_function(maps)
    threshold, _ = best_threshold(labels, scores, specificity_floor=SPECIFICITY_FLOOR)
    return MapScore(statistic, threshold=float(np.clip(threshold, 0, 1))).fit(maps)


STUDY = Study(
    name="detector",
    doc=first_line(__doc__),
    space=SPACE,
    fit=fit,
    score=score_head,
    conclude=conclude,
    first=(FIRST,),
    n_trials=60,
    timeout=360,
)
