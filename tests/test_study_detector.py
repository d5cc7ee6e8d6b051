"""The search over all detectors: what of a point goes where, and thresholds that are computed."""

import numpy as np
import pytest

from models.heads import DBSCANHead, GlobalKMeans, KeptMaps
from studies.detector import FIRST, SPACE, best_map_score, fit_head
from studies.settings import Settings, check_settings
from studies.study import StudyError, find_study
from training.data import phantom
from training.detector import DetectorSpec, detectors
from training.error_maps import ErrorMaps
from training.metrics import evaluate


@pytest.fixture
def maps() -> ErrorMaps:
    """Forty maps of noise; those of tumours hold a bright spot, most of them brighter."""
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 0.4, (40, 16, 16)).astype(np.float32)
    labels = np.arange(40) % 2
    values[labels == 1, 5, 5] = rng.uniform(0.35, 0.9, 20)
    return ErrorMaps(values, labels, np.arange(40))


def test_every_detector_takes_part_and_knows_what_is_searched_of_it():
    assert set(SPACE["detector"].choices) == set(detectors())
    for name, distribution in SPACE.items():
        if getattr(distribution, "parameter", None) == "detector":
            for detector in distribution.values:
                assert name in DetectorSpec(detector).complete().hyperparameters


def test_the_first_point_is_the_recipe_as_it_stands():
    chosen = {name: FIRST[name] for name in FIRST if name not in ("detector", "head", "statistic")}
    defaults = DetectorSpec("patch_features").complete().hyperparameters
    assert chosen == {name: defaults[name] for name in chosen}


def test_no_other_threshold_of_a_map_score_is_better(maps):
    head = best_map_score("max", KeptMaps(maps.values), maps.labels)
    scores = maps.values.max(axis=(1, 2))

    def value(threshold):
        metrics = evaluate(maps.labels, scores >= threshold, scores)
        return metrics["f2"] if metrics["specificity"] >= 0.5 else -1

    assert value(np.float32(head.threshold)) == max(value(score) for score in scores)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (
            {"head": "dbscan", "eps": 0.03, "min_samples": 9, "tumor_index": 0.2, "flips": "all"},
            DBSCANHead(eps=0.03, min_samples=9, tumor_index=0.2),
        ),
        (
            {"head": "global_kmeans", "anomaly_threshold": 0.3, "alpha": 0.2},
            GlobalKMeans(anomaly_threshold=0.3, alpha=0.2, seed=7),
        ),
    ],
)
def test_a_head_gets_its_own_parameters_and_the_seed(maps, point, expected):
    head = fit_head(point, KeptMaps(maps.values), maps.labels, seed=7)
    assert type(head) is type(expected) and head.get_params() == expected.get_params()
    head.predict(maps.values)  # it is fitted


def test_detector_has_no_meaning_for_a_search_over_detectors(tmp_path):
    settings = Settings(root=tmp_path, storage_url="", tracking_uri="", detector="autoencoder")
    with pytest.raises(StudyError, match="chooses its detector itself"):
        check_settings(find_study("detector"), settings)


@pytest.mark.slow
def test_the_search_ends_with_a_detector_that_is_registered(tmp_path, monkeypatch, capsys):
    from studies.__main__ import main

    phantom.write(tmp_path / "slices", n_images=80, n_groups=48)
    monkeypatch.setenv("VAR_DIR", str(tmp_path / "var"))
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    arguments = ["run", "detector", "--trials", "1", "--data", str(tmp_path / "slices")]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "detector=patch_features" in said  # the first point
    assert "Registered: models:/detector-slices@candidate (version 1)" in said
