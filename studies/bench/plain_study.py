"""A study as a script of one's own has it: Optuna, MLflow's fluent calls, a head of scikit-learn.

The sampler, its seed, the objective and the constraint are those of `studies.global_kmeans`.
"""

import numpy as np
import optuna
from optuna import Trial
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from sklearn.metrics import accuracy_score, precision_score, recall_score

from mlflow_server import fluent
from studies.bench import plain_heads

SPECIFICITY_FLOOR = 0.5


def search(
    maps: np.ndarray,
    labels: np.ndarray,
    *,
    name: str,
    n_trials: int,
    seed: int,
    storage: BaseStorage,
    tracking_uri: str,
) -> optuna.Study:
    """All trials, each a run below one of the whole search."""

    def objective(trial: Trial) -> float:
        threshold = trial.suggest_float("anomaly_threshold", 0, 1)
        alpha = trial.suggest_float("alpha", 0, 1)
        with fluent.open_child(f"{name} {trial.number}"):
            _, predicted = plain_heads.global_kmeans(maps, threshold, alpha, seed=seed)
            f2, specificity = plain_heads.f2_and_specificity(labels, predicted)
            metrics = {
                "f2": f2,
                "specificity": specificity,
                "recall": recall_score(labels, predicted),
                "precision": precision_score(labels, predicted, zero_division=0),
                "accuracy": accuracy_score(labels, predicted),
            }
            fluent.log(trial.params, metrics)
        trial.set_constraint("specificity", SPECIFICITY_FLOOR - specificity)
        return f2

    study = optuna.create_study(
        storage=storage, study_name=name, sampler=TPESampler(seed=seed), direction="maximize"
    )
    with fluent.open_parent(tracking_uri, name):
        study.optimize(objective, n_trials=n_trials)
    return study
