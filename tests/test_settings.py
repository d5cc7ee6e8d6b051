from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from studies.settings import (
    Settings,
    check_settings,
    full_name,
    generate_command,
    generator_model,
    slug,
    synthetic_folder,
)
from studies.study import StudyError, find_study

BR35H, PHANTOM = SimpleNamespace(name="br35h"), SimpleNamespace(name="phantom")


def settings(**changes):
    return Settings(root=Path("var"), storage_url="", tracking_uri="", **changes)


def test_a_study_with_every_default_has_its_own_name():
    assert full_name(find_study("giaem"), BR35H, settings()) == "giaem"


@pytest.mark.parametrize(
    ("dataset", "changes", "name"),
    [
        (PHANTOM, {}, "giaem (phantom)"),
        (BR35H, {"split": "paper"}, "giaem (paper split)"),
        (BR35H, {"seed": 3, "label": "mine"}, "giaem (seed 3, mine)"),
        (PHANTOM, {"detector": "search"}, "giaem (phantom, searched detector)"),
        (BR35H, {"preprocess": "paper"}, "giaem (paper preprocessing)"),
        (BR35H, {"train_on": "synthetic"}, "giaem (trained on vae)"),
        (BR35H, {"train_on": "mixed", "generator": "gan"}, "giaem (trained on real and gan)"),
        (BR35H, {"train_on": "mixed", "generator": "a/mine"}, "giaem (trained on real and mine)"),
    ],
)
def test_whatever_is_not_the_default_sets_a_study_apart(dataset, changes, name):
    assert full_name(find_study("giaem"), dataset, settings(**changes)) == name


def test_a_slug_is_a_name_for_folders_and_models():
    assert slug("global_kmeans (phantom, seed 3)") == "global_kmeans-phantom-seed-3"


def test_a_detectors_own_study_takes_no_detector():
    with pytest.raises(StudyError, match="Leave DETECTOR out"):
        check_settings(find_study("brain_cvae"), settings(detector="search"))


def test_a_classifier_takes_no_detector():
    with pytest.raises(StudyError, match=r"which has no detector\. Leave DETECTOR out"):
        check_settings(find_study("brain_cnn"), settings(detector="autoencoder"))


def test_training_images_are_of_a_known_kind():
    with pytest.raises(StudyError, match="real, synthetic, mixed, got 'fake'"):
        check_settings(find_study("giaem"), settings(train_on="fake"))


def test_a_generator_that_nothing_is_trained_on_is_refused():
    with pytest.raises(StudyError, match="Add TRAIN_ON=synthetic"):
        check_settings(find_study("giaem"), settings(generator="gan"))


def test_a_generator_learns_from_real_images_alone():
    study = replace(find_study("giaem"), name="vae", kind="generator")
    with pytest.raises(StudyError, match=r"from real images alone\. Leave TRAIN_ON out"):
        check_settings(study, settings(train_on="mixed"))


@pytest.mark.parametrize(
    ("dataset", "changes", "scheme", "name"),
    [
        (BR35H, {}, "classifier", "vae"),
        (BR35H, {}, "detector", "vae-detector"),
        (PHANTOM, {}, "classifier", "vae-phantom"),
        (BR35H, {"seed": 1, "generator": "gan"}, "classifier", "gan-seed-1"),
        (BR35H, {"split": "paper", "preprocess": "paper", "seed": 2}, "detector", None),
    ],
)
def test_each_split_and_scheme_has_a_synthetic_set_of_its_own(dataset, changes, scheme, name):
    name = name or "vae-paper-split-paper-preprocessing-detector-seed-2"
    assert synthetic_folder(dataset, settings(**changes), scheme) == Path("var/synthetic", name)


def test_what_is_no_generator_is_a_synthetic_sets_folder():
    assert synthetic_folder(BR35H, settings(generator="sets/mine"), "detector") == Path("sets/mine")


def test_the_best_generator_of_the_same_data_and_split_is_asked_for():
    changed = settings(seed=1, detector="autoencoder", label="mine", train_on="mixed")
    assert generator_model(PHANTOM, changed) == "models:/vae-phantom-seed-1@candidate"


def test_the_command_that_makes_a_set_names_all_that_sets_it_apart():
    assert generate_command(settings(), "detector") == (
        "make generate GENERATOR=vae FOR=detector SEED=0"
    )
    changed = settings(generator="gan", seed=2, data="phantom", split="paper", preprocess="paper")
    assert generate_command(changed, "classifier") == (
        "make generate GENERATOR=gan FOR=classifier SEED=2 DATA=phantom SPLIT=paper "
        "PREPROCESS=paper"
    )
