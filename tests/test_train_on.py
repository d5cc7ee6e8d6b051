"""`TRAIN_ON`: what a study trains on, and what its session, runs and models say of that."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from studies.external import find_made
from studies.session import open_session
from studies.settings import Settings, synthetic_folder
from studies.study import StudyError, find_study
from training.data import DataError, load, split
from training.data.phantom import write as write_phantom
from training.data.synthetic import Origin, write_synthetic


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Settings on 120 slices."""
    root = tmp_path_factory.mktemp("train_on")
    write_phantom(root / "slices", n_images=120, n_groups=110)
    return Settings(
        root=root / "var",
        storage_url="",
        tracking_uri="",
        data=str(root / "slices"),
        device="cpu",
        train_on="synthetic",
    )


@pytest.fixture
def settings(here):
    """The same with one synthetic set, which detectors train on."""
    shutil.rmtree(here.root / "synthetic", ignore_errors=True)
    write_set(here, "detector", n=8)
    return here


def write_set(settings, scheme, *, n, seen_under=None):
    """A set whose generator learned from the training images of these settings."""
    dataset = load(settings.data, root=settings.root, say=lambda _: None)
    splits = split(
        dataset.labels, dataset.groups, scheme=scheme, seed=(seen_under or settings).seed
    )
    train = splits.train
    seen = {
        name: dataset.manifest["sha256"][train[dataset.labels[train] == label]].tolist()
        for name, label in (("no", 0), ("yes", 1))
    }
    origin = Origin(
        generator="vae",
        source="the values of a test",
        hyperparameters={},
        seed=0,
        data=dataset.name,
        data_digest=dataset.digest,
        preprocess="head",
        protocol="grouped",
        scheme=scheme,
        seen=seen,
        measures={},
    )
    noise = np.random.default_rng(0).integers(0, 255, (n, 128, 128), dtype=np.uint8)
    names = ["no"] if scheme == "detector" else ["no", "yes"]
    folder = synthetic_folder(dataset, settings, scheme)
    return write_synthetic(folder, {name: [noise] for name in names}, origin)


def open_quietly(study, settings):
    return open_session(find_study(study), settings, say=lambda _: None)


def test_a_detector_trains_on_synthetic_images_and_is_tested_on_real_ones(settings):
    session = open_quietly("giaem", settings)
    real = open_quietly("giaem", replace(settings, train_on="real"))
    assert session.name == "giaem (slices, trained on vae)"
    assert session.lab.splits.train.tolist() == list(range(120, 128))
    assert session.lab.splits.test.tolist() == real.lab.splits.test.tolist()
    assert session.lab.splits.val.tolist() == real.lab.splits.val.tolist()


def test_mixed_training_adds_the_synthetic_images(settings):
    session = open_quietly("giaem", replace(settings, train_on="mixed"))
    assert session.name == "giaem (slices, trained on real and vae)"
    assert session.lab.splits.train.tolist() == [*session.real_splits.train, *range(120, 128)]


def test_a_classifier_trains_on_the_set_of_both_classes(settings):
    write_set(settings, "classifier", n=5)
    session = open_quietly("brain_cnn", settings)
    assert session.lab.dataset.labels[session.lab.splits.train].tolist() == [0] * 5 + [1] * 5


def test_runs_and_models_say_what_was_trained_on_and_keep_the_real_datas_digest(settings):
    session = open_quietly("giaem", settings)
    real = open_quietly("giaem", replace(settings, train_on="real"))
    assert session.tags() == real.tags() | {
        "train_on": "synthetic",
        "generator": "vae",
        "synthetic_digest": session.joined.synthetic.digest,
    }
    assert real.tags()["train_on"] == "real" and real.tags()["scheme"] == "detector"
    assert session.facts()["data"] == real.facts()["data"]
    assert session.facts()["trained on"] == (
        "8 synthetic images; vae-slices-detector by vae, the values of a test"
    )
    mixed = open_quietly("giaem", replace(settings, train_on="mixed"))
    n_real = len(real.lab.splits.train)
    assert mixed.facts()["trained on"].startswith(f"8 synthetic and {n_real} real images;")


def test_trials_on_another_synthetic_set_are_not_comparable(settings):
    session = open_quietly("giaem", settings)
    before = session.specification()
    write_set(settings, "detector", n=9)
    after = open_quietly("giaem", settings).specification()
    assert before["training images"] != after["training images"]
    assert before["data"] == after["data"]
    real = open_quietly("giaem", replace(settings, train_on="real"))
    assert "training images" not in real.specification()


def test_lineage_names_the_images_of_each_part(settings):
    def parts(train_on):
        session = open_quietly("giaem", replace(settings, train_on=train_on))
        return [(use.name, use.context, use.n_images) for use in session.lineage()]

    real = parts("real")
    assert [use[:2] for use in real] == [
        ("slices", "training"),
        ("slices", "validation"),
        ("slices", "test"),
    ]
    made = ("vae-slices-detector", "training", 8)
    assert parts("synthetic") == [made, *real[1:]]
    assert parts("mixed") == [made, *real]


def test_the_leak_is_that_of_the_images_that_the_generator_saw(settings):
    paper = replace(settings, split="paper", train_on="real")
    known = open_quietly("giaem", paper)
    assert max(known.leaks.values()) > 0
    session = open_quietly("giaem", settings)
    leaking = replace(
        session, joined=session.joined._replace(splits=known.lab.splits), settings=paper
    )
    assert leaking.leaks == known.leaks


def test_no_set_is_a_sentence_with_the_command_that_makes_it(settings):
    with pytest.raises(StudyError) as refused:
        open_quietly("giaem", replace(settings, generator="gan", seed=3))
    assert str(refused.value).endswith(
        f"`make generate GENERATOR=gan FOR=detector SEED=3 DATA={settings.data}`."
    )


def test_an_unknown_generator_lists_the_known_ones(settings):
    with pytest.raises(StudyError, match=r"gan, vae or a folder .* got 'vea'"):
        open_quietly("giaem", replace(settings, generator="vea"))


def test_a_set_whose_generator_saw_the_test_split_is_refused(settings):
    write_set(settings, "detector", n=8, seen_under=replace(settings, seed=1))
    with pytest.raises(DataError, match="would leak them into training"):
        open_quietly("giaem", settings)


def test_a_set_may_be_named_by_its_folder(settings):
    folder = settings.root / "synthetic" / "vae-slices-detector"
    session = open_quietly("giaem", replace(settings, generator=str(folder)))
    assert session.name == "giaem (slices, trained on vae-slices-detector)"
    assert session.tags()["generator"] == "vae"


def test_a_registered_models_training_images_are_found_by_its_tags(settings):
    """Also of one that was trained on synthetic images, and of a classifier, split otherwise."""
    write_set(settings, "classifier", n=5)
    for study in ("giaem", "brain_cnn"):
        session = open_quietly(study, settings)
        made = find_made(session.tags(), "models:/x@candidate", settings.root)
        assert made.dataset.digest == session.real.digest
        assert made.splits.train.tolist() == session.real_splits.train.tolist()
        assert made.splits.test.tolist() == session.lab.splits.test.tolist()
