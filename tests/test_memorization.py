"""A generator that copies is found, whatever it does to the copies; one that does not is not."""

import numpy as np
import pytest

from models.error_mapper import FLIPS
from training.data import DataError, load, split
from training.memorization import (
    PRIVACY_FLOOR,
    MemorizationTest,
    _chance_of_nearer,
    _distances,
    memorization,
    turned,
)


def parts_of(dataset, label, *, seed=0):
    """Indices of training, held-out and independent images of a class; no group is in two."""
    groups = np.unique(dataset.groups[dataset.labels == label])
    shuffled = np.random.default_rng(seed).permutation(groups)
    n = len(groups)
    return [
        np.flatnonzero(np.isin(dataset.groups, part))
        for part in np.split(shuffled, [n // 2, 3 * n // 4])
    ]


def memorization_test(dataset, train, held_out):
    return MemorizationTest.of(
        dataset.images[train],
        dataset.images[held_out],
        train_groups=dataset.groups[train],
        held_out_groups=dataset.groups[held_out],
    )


@pytest.fixture(scope="module")
def phantom_parts(phantom):
    return parts_of(phantom, 0)


@pytest.fixture(scope="module")
def asked(phantom, phantom_parts):
    """The test on half of the phantom's healthy groups, a quarter being held out."""
    return memorization_test(phantom, *phantom_parts[:2])


def noisy(images, seed=0):
    noise = np.random.default_rng(seed).normal(0, 8, images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


def shifted(images):
    return np.roll(images, 4, axis=2)


COPIES = {
    "as they are": lambda images: images,
    "flipped": lambda images: images[:, :, ::-1],
    "with noise": noisy,
    "shifted": shifted,
    "half as strong": lambda images: images // 2,
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_a_generator_that_returns_training_images_is_found(phantom, phantom_parts, asked, change):
    copies = np.ascontiguousarray(change(phantom.images[phantom_parts[0]]))
    metrics = asked.ask(copies).metrics
    assert metrics["privacy"] < 0.2
    assert metrics["memorization_nearer_to_training"] > 0.6


def test_exact_copies_have_no_privacy_at_all(phantom, phantom_parts, asked):
    metrics = asked.ask(phantom.images[phantom_parts[0]]).metrics
    assert metrics["privacy"] == 0
    assert metrics["memorization_copies"] == 1
    assert metrics["memorization_distance_ratio"] < 0.01


@pytest.mark.parametrize("label", [0, 1])
def test_real_images_that_were_never_seen_are_no_copies(phantom, label):
    found = []
    for seed in range(4):  # one division has 25 independent groups, too few to be sure
        train, held_out, independent = parts_of(phantom, label, seed=seed)
        asked = memorization_test(phantom, train, held_out)
        found.append(asked.ask(phantom.images[independent]).metrics)
    mean = {name: np.mean([metrics[name] for metrics in found]) for name in found[0]}
    assert mean["privacy"] >= PRIVACY_FLOOR
    assert mean["memorization_nearer_to_training"] == pytest.approx(0.5, abs=0.15)
    assert mean["memorization_distance_ratio"] == pytest.approx(1, abs=0.1)


def test_copies_of_held_out_images_are_no_copies_of_training_images(phantom, phantom_parts, asked):
    metrics = asked.ask(phantom.images[phantom_parts[1]]).metrics
    assert metrics["privacy"] == 1
    assert metrics["memorization_nearer_to_training"] < 0.1
    assert metrics["memorization_copies_held_out"] == 1


def test_a_generator_that_copies_now_and_then_falls_below_the_floor(phantom, phantom_parts, asked):
    train, _, independent = (phantom.images[part] for part in phantom_parts)
    mixed = np.concatenate([train[:30], independent[:60]])
    assert asked.ask(mixed).metrics["privacy"] < PRIVACY_FLOOR


def test_images_that_are_near_to_everything_are_not_taken_for_copies(phantom, phantom_parts, asked):
    train, independent = phantom.images[phantom_parts[0]], phantom.images[phantom_parts[2]]
    faint = (0.25 * independent + 0.75 * train.mean(axis=0)).astype(np.uint8)
    as_they_are = asked.ask(independent).metrics["privacy"]
    assert asked.ask(faint).metrics["privacy"] == pytest.approx(as_they_are, abs=0.05)


def test_an_empty_image_is_a_copy_of_nothing(asked):
    metrics = asked.ask(np.zeros((10, 128, 128), dtype=np.uint8)).metrics
    assert metrics["privacy"] == 1
    assert metrics["memorization_copies"] == 0
    assert all(np.isfinite(value) for value in metrics.values())


def test_a_copys_neighbour_is_its_original_as_the_copy_shows_it(phantom, phantom_parts, asked):
    train = phantom.images[phantom_parts[0]]
    copies = np.ascontiguousarray(train[5:9, ::-1])
    neighbors = asked.ask(copies).neighbors
    np.testing.assert_allclose(neighbors.to_train, 0, atol=1e-3)
    assert neighbors.memorized.all()
    found = turned(train[neighbors.train], neighbors.train_flip)
    assert np.abs(found.astype(int) - copies).mean() < 3


def test_the_closest_come_first(phantom, phantom_parts, asked):
    train, _, independent = (phantom.images[part] for part in phantom_parts)
    neighbors = asked.ask(np.concatenate([independent[:5], train[:2]])).neighbors
    assert set(neighbors.closest(2)) == {5, 6}
    assert neighbors.suspicion[neighbors.closest(7)].tolist() == sorted(neighbors.suspicion)[::-1]


def test_one_question_is_the_same_as_a_test_that_is_kept(phantom, phantom_parts, asked):
    train, held_out, independent = phantom_parts
    once = memorization(
        phantom.images[independent[:8]],
        phantom.images[train],
        phantom.images[held_out],
        train_groups=phantom.groups[train],
        held_out_groups=phantom.groups[held_out],
    )
    assert once.metrics == asked.ask(phantom.images[independent[:8]]).metrics


def test_the_chance_of_being_nearer_counts_the_draws():
    here, there = np.array([[1.0, 3.0, 4.0]]), np.array([[2.0]])
    # one of three is nearer than 2, one is drawn
    assert _chance_of_nearer(here, there) == pytest.approx(1 / 3)
    assert _chance_of_nearer(there, here) == pytest.approx(2 / 3)
    # two of three are drawn: in two of three draws the nearer one is among them
    assert _chance_of_nearer(here, np.array([[2.0, 9.0]])) == pytest.approx(2 / 3)


def test_a_distance_is_that_of_the_nearest_flip():
    described = np.array([[[0.0, 0.0]], [[3.0, 4.0]], [[9.0, 9.0]], [[8.0, 8.0]]])
    distances, flips = _distances(described, np.array([[3.0, 4.0], [0.0, 1.0]]))
    np.testing.assert_allclose(distances, [[0, 1]])
    assert flips.tolist() == [[1, 0]]
    assert len(FLIPS["all"]) == len(described)


def test_sets_that_share_groups_and_too_few_groups_are_refused(phantom):
    images, groups = phantom.images[:8], np.arange(8)
    with pytest.raises(DataError, match=r"8 groups .* are in training and held-out .*grouped"):
        MemorizationTest.of(images, images, train_groups=groups, held_out_groups=groups)
    with pytest.raises(DataError, match="4 groups of held-out images or more, got 1"):
        MemorizationTest.of(images, images, train_groups=groups, held_out_groups=np.full(8, 99))


@pytest.mark.slow
@pytest.mark.br35h
@pytest.mark.parametrize("label", [0, 1])
def test_on_real_slices_other_patients_pass_the_floor_and_copies_do_not(br35h_dir, tmp_path, label):
    dataset = load("br35h", root=tmp_path, say=lambda _: None)
    splits = split(dataset.labels, dataset.groups, scheme="classifier", seed=0)
    train, held_out, test = (part[dataset.labels[part] == label] for part in splits)
    asked = memorization_test(dataset, train, held_out)
    assert asked.ask(dataset.images[test]).metrics["privacy"] >= PRIVACY_FLOOR
    for change in COPIES.values():
        copies = np.ascontiguousarray(change(dataset.images[train[::5]]))
        assert asked.ask(copies).metrics["privacy"] < 0.2
