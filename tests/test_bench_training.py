"""The script that training is timed against: it trains the same networks, on the same images."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from studies.bench import training as bench
from training.data import Splits

NAMES = list(bench.NETWORKS)
CORES = os.sched_getaffinity(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    images = np.random.default_rng(0).integers(0, 256, (24, 128, 128)).astype(np.uint8)
    dataset = SimpleNamespace(images=images, labels=np.arange(24) % 2)
    splits = Splits(np.arange(0, 16), np.arange(16, 24), np.arange(0))
    folder = tmp_path_factory.mktemp("images") / "some"
    bench.write_images(dataset, splits, folder, n=12, labelled=True)
    return folder


def test_both_sides_have_the_same_images(folder):
    for part, n in (("train", 12), ("val", 6)):
        files = bench.ImageFolder(folder / part, bench.transforms.Grayscale())
        arrays = np.load(folder / f"{part}_images.npy")
        assert len(files) == len(arrays) == n
        assert {np.asarray(x).tobytes() for x, _ in files} == {x.tobytes() for x in arrays}
        assert sorted(y for _, y in files) == sorted(np.load(folder / f"{part}_labels.npy"))


@pytest.mark.parametrize("name", NAMES)
def test_the_script_measures_the_loss_that_we_do(name, folder):
    network = bench.NETWORKS[name]
    module = network.build()
    bench.check_loss(network, module, network.script(module), folder)


def test_a_script_of_another_loss_is_refused(folder):
    network = bench.NETWORKS["vae"]
    module = network.build()
    script = bench.autoencoding(module, 1e-3, bench.squared)
    with pytest.raises(ValueError, match=r"The script's loss is .* where ours is"):
        bench.check_loss(network, module, script, folder)


@pytest.mark.parametrize("side", ["ours", "peer"])
@pytest.mark.parametrize("name", ["brain_cnn small", "gan"])
def test_a_training_says_how_fast_it_was_and_what_it_came_to(side, name, folder):
    train = {"ours": bench.train_ours, "peer": bench.train_peer}[side]
    outcome = train(bench.NETWORKS[name], folder, n_epochs=1, seed=0)
    assert outcome.images_per_second > 0
    assert 0 < outcome.val_loss < 100


@pytest.mark.skipif(not bench.backbones.is_installed(bench.backbones.LITE), reason="no weights")
def test_what_is_remembered_measures_the_same_both_ways(folder):
    network = bench.NETWORKS["patch_features"]
    sides = bench.train_ours, bench.train_peer
    ours, theirs = (train(network, folder, n_epochs=1, seed=0).val_loss for train in sides)
    assert ours == pytest.approx(theirs, rel=1e-3)


def test_the_distance_of_made_images_is_0_for_the_same_and_grows_with_what_differs():
    real = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    same, darker, dark = (bench.energy_distance(real * share, real) for share in (1, 0.8, 0.2))
    assert abs(same) < darker < dark


@pytest.mark.slow
def test_a_training_is_timed_in_a_process_of_its_own_and_a_failed_one_is_told(folder):
    size = bench.Size(12, 1)
    with bench.trainings() as train:
        with pytest.raises(RuntimeError, match=r"(?s)training of gan failed: .*nowhere"):
            train("ours", "gan", folder / "nowhere", size, 0)
        assert train("ours", "brain_cnn small", folder, size, 0).images_per_second > 0
    assert os.sched_getaffinity(0) == CORES


def judged(losses, n_seeds):
    """A training both ways, whose losses have these ratios."""
    ours, peer = (bench.Side(1.0, loss) for loss in (float(np.median(losses)), 1.0))
    return bench.Pair("gan", ours, peer, 2.0, 0.1, tuple(losses), n_seeds)


def test_one_seed_is_enough_where_luck_decides_nothing():
    assert judged([1.05], 1).equally_good and not judged([1.06], 1).equally_good


def test_a_loss_that_many_seeds_share_is_told_from_luck():
    assert judged([0.8, 1.3, 0.9, 1.25], 4).equally_good
    assert not judged([1.2, 1.3, 1.25, 1.22], 4).equally_good
    assert bench.low_end([2.0, 2.0, 2.0]) == pytest.approx(2)
    assert bench.low_end([1.0, 4.0]) == pytest.approx(2 / 4)  # two errors of a factor of 2 below 2


def test_fewer_seeds_than_it_takes_judge_nothing():
    assert not judged([9.0, 9.0], 3).is_judged and judged([9.0, 9.0], 3).equally_good


def test_as_many_seeds_as_it_takes_are_trained_where_all_are_asked_for(folder, monkeypatch):
    @contextmanager
    def trainings():
        yield lambda side, name, folder, size, seed: bench.Side(1.0, 1.0 + seed)

    monkeypatch.setattr(bench, "trainings", trainings)
    monkeypatch.setattr(bench, "write_images", lambda *args, **more: None)
    for all_seeds, rounds in ((True, bench.NETWORKS["gan"].n_seeds), (False, 1)):
        effort = bench.Effort(1, {"gan": bench.Size(8, 1)}, all_seeds=all_seeds)
        (pair,) = bench.pairs(None, None, folder, effort=effort)
        assert len(pair.losses) == rounds and pair.is_judged == all_seeds
