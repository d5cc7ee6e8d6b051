"""One contract for all studies: a new one is covered the day it appears."""

import json

import numpy as np
import optuna
import pytest
import torch

from studies.runner import enqueue_first
from studies.space import Capped, describe, suggest
from studies.study import AtLeast, Lab, News, StudyError, find_study, known_studies
from training.cache import Cache
from training.data import split
from training.features import FeatureStore

# What makes the training of a study's detector quick.
TINY = {"n_epochs": 1, "image_size": 32}
QUICK = {
    "autoencoder": TINY | {"latent_dim": 4},
    "denoising_autoencoder": TINY,
    "synthetic_lesions": TINY,
    "brain_cnn": TINY | {"variant": "small", "image_size": 32},
    "vae": TINY | {"n_epochs": 3, "batch_size": 8, "lr": 2e-3, "kl_weight": 1e-3, "kl_warmup": 0},
    "gan": TINY | {"n_epochs": 2, "latent_dim": 8, "n_discriminator_steps": 1},
    "detector": {"detector": "patch_features", "intensity": "none"},
}
HEAD_STUDIES = TINY | {"latent_dim": 4}  # over brain_cvae
STUDIES = known_studies()


@pytest.fixture(scope="module")
def labs(phantom, tmp_path_factory):
    """A lab for each way to split the data."""
    cache = Cache(tmp_path_factory.mktemp("cache"))
    store = FeatureStore(phantom, cache, torch.device("cpu"), say=lambda _: None)
    return {
        scheme: Lab(
            store=store,
            splits=split(phantom.labels, phantom.groups, scheme=scheme),
            precision="fp32",
            seed=0,
        )
        for scheme in ("detector", "classifier")
    }


@pytest.fixture(scope="module")
def lab(labs):
    return labs["detector"]


def point(study, seed=0):
    sampler = optuna.samplers.RandomSampler(seed=seed)
    return suggest(optuna.create_study(sampler=sampler).ask(), study.space)


def test_the_five_studies_are_there():
    assert {"giaem", "dbscan", "image_kmeans", "global_kmeans", "brain_cvae"} <= set(STUDIES)


def test_an_unknown_study_lists_the_known_ones_with_their_docstrings():
    with pytest.raises(StudyError) as unknown:
        find_study("giam")
    for study in STUDIES.values():
        assert study.name in str(unknown.value) and study.doc in str(unknown.value)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_study_is_a_module_of_its_name_with_a_docstring(study):
    assert STUDIES[study.name] is study
    assert study.doc and "\n" not in study.doc


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_space_can_be_written_down_and_sampled(study):
    written = json.loads(json.dumps(describe(study.space)))
    assert list(written) == list(study.space)
    unconditional = {name for name in written if "when" not in written[name]}
    assert unconditional <= set(point(study)) <= set(written)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_a_point_is_fitted_and_scored_on_validation(study, labs):
    lab = labs[study.scheme]
    candidate = study.fit({**point(study), **QUICK.get(study.name, HEAD_STUDIES)}, lab, News())
    metrics = study.score(candidate, lab)
    assert study.metric in metrics
    assert all(np.isfinite(value) for value in metrics.values())
    if study.kind != "generator":
        assert metrics["tp"] + metrics["fn"] == (lab.dataset.labels[lab.splits.val] == 1).sum()
    assert isinstance(study.is_feasible(metrics), bool | np.bool_)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_the_same_point_has_the_same_metrics(study, labs):
    lab = labs[study.scheme]
    params = {**point(study), **QUICK.get(study.name, HEAD_STUDIES)}
    first, second = (study.score(study.fit(params, lab, News()), lab) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_a_hundred_points_over_one_detector_train_one_network(lab):
    trained = []
    study = STUDIES["giaem"]
    for seed in range(100):
        params = {**point(study, seed), **HEAD_STUDIES}
        study.fit(params, lab, News(on_train=lambda: trained.append(1)))
    assert len(trained) <= 1


def test_dbscan_suggests_only_pairs_that_can_form_a_cluster():
    from models.heads.dbscan import max_neighbors

    for seed in range(200):
        params = point(STUDIES["dbscan"], seed)
        assert params["min_samples"] <= max_neighbors(params["eps"])


def test_dbscans_cap_is_not_wider_than_its_range():
    assert isinstance(STUDIES["dbscan"].space["min_samples"], Capped)


def test_searching_the_detector_joins_both_spaces():
    joined = STUDIES["giaem"].searching(STUDIES["brain_cvae"])
    assert set(joined.space) == {*STUDIES["giaem"].space, *STUDIES["brain_cvae"].space}
    assert joined.name == "giaem" and joined.metric == "f2"


def test_everyone_has_a_tumour_is_infeasible():
    from training.metrics import evaluate

    labels = np.array([0, 0, 1, 1, 1, 1])
    metrics = evaluate(labels, np.ones(6, int), np.ones(6))
    assert metrics["recall"] == 1.0
    for study in STUDIES.values():
        assert study.kind == "generator" or not study.is_feasible(metrics)


def test_a_specificity_on_the_floor_is_feasible():
    floor = AtLeast("specificity", 0.5)
    assert floor.violation({"specificity": 0.5}) == 0
    assert floor.violation({"specificity": 0.0}) == 0.5


def test_better_follows_the_direction():
    study = STUDIES["giaem"]
    assert study.is_better(0.1, None)
    assert study.is_better(0.6, 0.5) and not study.is_better(0.5, 0.5)


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_the_points_that_a_study_begins_with_are_points_of_its_space(study):
    for params in study.first:
        search = optuna.create_study()
        search.enqueue_trial(params)
        assert suggest(search.ask(), study.space) == params


def test_a_new_search_begins_with_the_known_points_and_a_resumed_one_does_not():
    study, search = STUDIES["giaem"], optuna.create_study()
    enqueue_first(study, search)
    enqueue_first(study, search)
    asked = [suggest(search.ask(), study.space) for _ in range(len(study.first) + 1)]
    assert tuple(asked[:-1]) == study.first
    assert asked[-1] not in study.first
