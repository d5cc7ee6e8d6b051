"""`generate`: what it refuses, what it says beforehand, and what its sets say of themselves."""

import json
from dataclasses import replace

import mlflow
import numpy as np
import pytest

from mlflow_server import Tracking, TrialRun, local_uri
from studies.generate import (
    Recipe,
    check_room,
    describe,
    draw,
    find_made,
    find_recipe,
    fit_class,
    make_set,
    open_workshop,
    plan,
)
from studies.session import open_session
from studies.settings import Settings, synthetic_folder
from studies.study import StudyError, find_study
from training.generator import GeneratorSpec

TINY = {"image_size": 32, "base_channels": 4, "latent_dim": 8, "n_epochs": 3, "patience": 3}
TINY |= {"batch_size": 8, "lr": 5e-3, "kl_weight": 1e-3}  # it learns more than one grey
RECIPE = Recipe(GeneratorSpec("vae", TINY).complete(), "the values of a test")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    root = tmp_path_factory.mktemp("generate")
    return Settings(
        root=root, storage_url="", tracking_uri=local_uri(root), data="phantom", device="cpu"
    )


@pytest.fixture(scope="module")
def workshop(settings):
    """Where detectors' images are made: of healthy slices alone."""
    return open_workshop(settings, "detector")


def test_more_images_than_there_is_room_for_are_refused_with_the_estimate(tmp_path):
    with pytest.raises(StudyError) as refused:
        check_room(10**9, 2, tmp_path / "not" / "there")
    said = str(refused.value)
    assert said.startswith("N=1000000000 makes 2,000,000,000 images: about 24576.0 GB on disk")
    assert "are free" in said and said.endswith("Ask for a smaller N; the paper has 1500.")


def test_no_images_are_refused(tmp_path):
    with pytest.raises(StudyError, match="N must be at least 1 image a class, got 0"):
        check_room(0, 1, tmp_path)


def test_the_papers_number_of_images_fits(tmp_path):
    check_room(1500, 2, tmp_path)


def test_a_generator_sees_the_training_images_of_its_class_alone(workshop):
    dataset, train = workshop.lab.dataset, workshop.lab.splits.train
    seen = describe(RECIPE, workshop).seen
    assert seen == {"no": sorted(dataset.manifest["sha256"][train])}
    assert workshop.classes == {"no": 0}


def test_the_plan_says_time_and_disk_before_anything_is_done(workshop, tmp_path):
    said = plan(RECIPE, workshop, 1500, tmp_path / "vae")
    n_train = len(workshop.lab.splits.train)
    assert f"vae with the values of a test: a network a class, on {n_train} of no/." in said
    assert "of training" in said and f"about 18 MB, in {tmp_path / 'vae'}" in said


@pytest.mark.slow
def test_a_set_is_whole_and_says_what_it_is_of(settings, workshop):
    folder = synthetic_folder(workshop.lab.dataset, settings, "detector")
    origin = describe(RECIPE, workshop)
    made = make_set(folder, RECIPE, workshop, origin, 20)
    assert made.labels.tolist() == [0] * 20 and made.images.std(axis=0).mean() > 0
    assert {"ms_ssim", "privacy", "memorization_copies"} <= set(made.origin.measures["no"])
    assert replace(made.origin, measures={}) == origin
    assert (folder / "no.png").exists()
    assert find_made(folder, origin, 20).digest == made.digest
    assert find_made(folder, origin, 21) is None
    assert find_made(folder, replace(origin, seed=1), 20) is None
    session = open_session(
        find_study("giaem"), replace(settings, train_on="synthetic"), say=lambda _: None
    )
    assert np.array_equal(session.lab.dataset.images[session.lab.splits.train], made.images)


@pytest.mark.slow
def test_a_spoilt_set_is_made_again_from_the_same_networks(settings, workshop):
    folder = settings.root / "synthetic" / "again"
    origin = describe(RECIPE, workshop)
    made = make_set(folder, RECIPE, workshop, origin, 10)
    (folder / "no" / "00001.png").unlink()
    assert find_made(folder, origin, 10) is None
    assert make_set(folder, RECIPE, workshop, origin, 10).digest == made.digest


@pytest.mark.slow
def test_equal_seeds_draw_equal_images_and_others_do_not(workshop):
    fitted = fit_class(RECIPE.spec, workshop, "no", None)
    first, again, other = (np.concatenate(list(draw(fitted, 6, seed))) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(np.unique(first.reshape(6, -1), axis=0)) == 6


@pytest.mark.slow
def test_without_a_registered_generator_the_papers_values_are_taken_and_named(workshop, tmp_path):
    settings = Settings(root=tmp_path, storage_url="", tracking_uri=local_uri(tmp_path), seed=4)
    recipe = find_recipe(settings, workshop.lab.dataset)
    assert recipe.spec == GeneratorSpec("vae", seed=4).complete()
    assert recipe.source == (
        "the paper's values, since there is no models:/vae-phantom-seed-4@candidate"
    )


@pytest.mark.slow
def test_the_registered_generators_values_are_taken(workshop, tmp_path):
    settings = Settings(root=tmp_path, storage_url="", tracking_uri=local_uri(tmp_path))
    run_id = register(settings, "vae-phantom", TINY)
    recipe = find_recipe(settings, workshop.lab.dataset)
    assert recipe.spec == RECIPE.spec
    assert recipe.source == f"the values of models:/vae-phantom@candidate, run {run_id}"


def register(settings, name, hyperparameters):
    """A registered version whose run keeps the generator's values, as studies of generators do."""
    spec = {"name": "vae", "hyperparameters": hyperparameters, "seed": 0}
    kept = settings.root / "artifacts" / "head"
    kept.mkdir(parents=True)
    (kept / "predictor.json").write_text(json.dumps({"generator": spec}))
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    experiment = tracking.experiments.open(name, note="", tags={})
    parent = tracking.open_study(experiment, name, params={}, tags={}, datasets=[])
    run = TrialRun(name, 0, name, "FINISHED", 0, 1, artifacts=kept.parent)
    run_id = tracking.publish_trial(experiment, parent, run)
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    client.create_registered_model(name)
    client.create_model_version(name, source="mem", run_id=run_id, tags={"run_id": run_id})
    client.set_registered_model_alias(name, "candidate", "1")
    return run_id
