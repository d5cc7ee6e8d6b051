"""Generator studies: what their measures say of copies, and how such a study ends."""

import io
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution

from studies.generation import check_groups, generator_study
from studies.generation_end import MEASURES, REAL, REPEATED, conclude
from studies.generation_measures import OBJECTIVE, measure, real_of
from studies.runner import run
from studies.session import open_session
from studies.settings import Settings
from studies.study import Lab, News, StudyError, find_study
from training.cache import Cache
from training.data import split
from training.features import FeatureStore
from training.generator_bundle import GeneratorBundle

TINY = {"n_epochs": 3, "patience": 3, "image_size": 32, "base_channels": 4, "batch_size": 8}
TINY |= {"lr": 5e-3, "kl_weight": 1e-3}  # it learns more than one grey
PRUNER = optuna.pruners.NopPruner()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("generation")


@pytest.fixture(scope="module")
def lab(phantom, root):
    return Lab(
        store=FeatureStore(phantom, Cache(root / "cache"), torch.device("cpu"), lambda _: None),
        splits=split(phantom.labels, phantom.groups, scheme="classifier"),
        precision="fp32",
        seed=0,
    )


@pytest.fixture(scope="module")
def study():
    """A study of a tiny VAE with two trials to make, which learns too little to keep a floor."""
    made = generator_study(
        "vae",
        space={"latent_dim": CategoricalDistribution([4, 8])},
        fixed=TINY,
        doc="Tiny.",
        n_trials=2,
        pruner=PRUNER,
    )
    return replace(made, constraints=())


@pytest.fixture(scope="module")
def settings(root):
    uri = f"sqlite:///{root / 'mlflow.db'}"
    return Settings(root, f"sqlite:///{root / 'optuna.db'}", uri, data="phantom")


@pytest.fixture(scope="module")
def finished(study, settings):
    """What the study said when it was run."""
    with redirect_stdout(io.StringIO()) as said:
        assert run(study, settings)
    return said.getvalue()


@pytest.mark.slow
def test_a_generator_that_returns_its_training_images_can_never_win(lab):
    real = real_of(lab).val
    floor = find_study("vae").constraints[0]
    for copy in (lambda images: images, lambda images: images[:, :, ::-1]):
        copies = {label: np.ascontiguousarray(copy(one.train[:128])) for label, one in real.items()}
        assert floor.violation(measure(copies, real, seed=0)) > 0


@pytest.mark.slow
def test_real_images_of_others_are_no_copies_and_near_to_validation(lab):
    real, test = real_of(lab).val, lab.splits.test
    labels, images = lab.dataset.labels[test], lab.dataset.images[test]
    others = {label: images[labels == label] for label in real}
    metrics = measure(others, real, seed=0)
    assert find_study("vae").constraints[0].violation(metrics) <= 0
    one = {label: np.repeat(own[:1], 64, axis=0) for label, own in others.items()}
    assert find_study("vae").constraints[1].violation(measure(one, real, seed=0)) > 0
    noise = np.random.default_rng(0).integers(0, 256, images.shape, dtype=np.uint8)
    assert metrics[OBJECTIVE] < measure(dict.fromkeys(real, noise), real, seed=0)[OBJECTIVE]


@pytest.mark.slow
def test_a_study_ends_with_measures_on_test_beside_real_images(study, settings, root, finished):
    assert "Registered: models:/vae-phantom@candidate" in finished
    page = (root / "reports" / "vae-phantom.html").read_text()
    assert REAL in page and REPEATED in page
    session = open_session(study, settings, say=lambda _: None)
    search = optuna.load_study(study_name="vae (phantom)", storage=settings.storage_url)
    assert search.user_attrs["test_looks"] == [search.best_trial.number]
    ended = conclude(session, search)
    assert search.user_attrs["test_looks"] == [search.best_trial.number]  # asked once
    assert list(ended.rows) == ["vae (phantom)", REAL, REPEATED]
    assert all(np.isfinite(ended.rows[name][column]) for name in ended.rows for column in MEASURES)
    assert ended.rows[REPEATED]["feature_spread"] < 0.01
    assert {"samples_no", "training_yes", "neighbors_yes", "closest_pairs_no"} <= set(
        ended.pictures
    )


@pytest.mark.slow
def test_a_saved_bundle_makes_the_images_of_its_networks(study, lab, tmp_path):
    made = study.fit({"latent_dim": 4}, lab, News())
    bundle = made.predictor(lab)
    bundle.save(tmp_path / "whole")
    again = GeneratorBundle.load(tmp_path / "whole")
    labels, seeds = np.array([1, 0, 1]), np.array([5, 5, 6])
    images = again.generate(labels, seeds)
    assert images.shape == (3, 128, 128) and images.dtype == np.uint8
    assert np.array_equal(images, bundle.generate(labels, seeds))
    alone = again.generate(labels[2:], seeds[2:]).astype(int)  # rounded anew
    assert np.abs(alone - images[2:]).max() <= 1
    assert not np.array_equal(images[0], images[1])
    with pytest.raises(ValueError, match=r"label must be one of \[0, 1\], got 2"):
        again.generate(np.array([2]), np.array([0]))


def test_a_split_that_leaks_is_refused(phantom, lab):
    leaking = split(phantom.labels, phantom.groups, protocol="paper", scheme="classifier")
    with pytest.raises(StudyError, match="Take SPLIT=grouped"):
        check_groups(Lab(lab.store, leaking, "fp32", 0))
