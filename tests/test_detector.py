"""A fitted detector: trained once, on healthy images alone, never shown a test image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.cache import Cache
from training.data import Dataset, Splits, split
from training.detector import DetectorSpec, detectors, fit_detector
from training.error_maps import map_images
from training.features import FeatureStore
from training.loop import TrainingError, as_input

CPU = torch.device("cpu")
TINY = {"image_size": 32, "n_epochs": 6, "batch_size": 4, "latent_dim": 8, "lr": 3e-3}


@pytest.fixture
def splits(phantom) -> Splits:
    """A few images of each split, all of the training ones healthy."""
    whole = split(phantom.labels, phantom.groups)
    tumours_last = whole.val[np.argsort(phantom.labels[whole.val])]
    return Splits(whole.train[:64], np.sort(tumours_last[[0, 1, 2, 3, -4, -3, -2, -1]]), whole.test)


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def train(dataset: Dataset, splits: Splits, cache: Cache, hyperparameters=TINY, seed=0, **news):
    spec = DetectorSpec("brain_cvae", dict(hyperparameters), seed)
    store = FeatureStore(dataset, cache, CPU, say=lambda _: None)
    return fit_detector(spec, splits, store, precision="fp32", **news)


def weights(fitted) -> torch.Tensor:
    return torch.cat([value.flatten() for value in fitted.mapper.state_dict().values()])


def spoilt(dataset: Dataset, indices: np.ndarray) -> Dataset:
    """The dataset with other pixels at these indices, under the same digest."""
    images = dataset.images.copy()
    images[indices] = 255 - images[indices]
    return replace(dataset, images=images)


def test_an_equal_training_is_found_and_not_repeated(phantom, splits, cache):
    epochs, starts = [], []
    news = {"on_epoch": lambda n, m: epochs.append(n), "on_train": lambda: starts.append(1)}
    first = train(phantom, splits, cache, **news)
    again = train(phantom, splits, cache, **news)
    assert (first.trained, again.trained) == (True, False)
    assert (epochs, starts) == ([1, 2, 3, 4, 5, 6], [1])
    assert again.key == first.key
    assert again.history == first.history
    assert again.best_epoch == first.best_epoch
    assert torch.equal(weights(first), weights(again))
    assert set(first.history[0]) == {
        *("train_loss", "train_reconstruction", "train_kl"),
        *("val_loss", "val_reconstruction", "val_kl", "val_auroc", "seconds"),
    }


def test_defaults_that_are_written_out_are_the_same_training():
    spec = DetectorSpec("brain_cvae", {"n_epochs": 3})
    written_out = spec.complete()
    assert {"latent_dim", "lr", "patience"} < set(written_out.hyperparameters)
    assert written_out.hyperparameters["n_epochs"] == 3
    assert written_out.complete() == written_out


@pytest.mark.parametrize("change", ["hyperparameter", "seed", "data", "split"])
def test_another_training_has_another_key(phantom, splits, cache, change):
    key = train(phantom, splits, cache).key
    other = {
        "hyperparameter": lambda: train(phantom, splits, cache, TINY | {"kl_weight": 0.5}),
        "seed": lambda: train(phantom, splits, cache, seed=1),
        "data": lambda: train(replace(phantom, digest="0" * 32), splits, cache),
        "split": lambda: train(phantom, splits._replace(train=splits.train[1:]), cache),
    }[change]()
    assert other.trained
    assert other.key != key


def test_test_images_and_tumours_teach_nothing(phantom, splits, tmp_path):
    tumours = splits.test[phantom.labels[splits.test] == 1][:16]
    with_tumours = splits._replace(train=np.sort(np.concatenate([splits.train, tumours])))
    trained = [
        train(phantom, splits, Cache(tmp_path / "plain")),
        train(spoilt(phantom, splits.test), splits, Cache(tmp_path / "spoilt")),
        train(phantom, with_tumours, Cache(tmp_path / "tumours")),
    ]
    assert all(fitted.trained for fitted in trained)
    assert torch.equal(weights(trained[0]), weights(trained[1]))
    assert torch.equal(weights(trained[0]), weights(trained[2]))


def test_error_maps_are_those_of_the_images_asked_for(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    maps = fitted.error_maps(splits.val[[3, 1]])
    images = phantom.images[splits.val[[3, 1]]]
    np.testing.assert_array_equal(maps.values, map_images(fitted.mapper, images, device=CPU))
    np.testing.assert_array_equal(maps.labels, phantom.labels[splits.val[[3, 1]]])
    np.testing.assert_array_equal(maps.groups, phantom.groups[splits.val[[3, 1]]])


def test_how_errors_become_maps_changes_without_another_fit(phantom, splits, cache):
    first = train(phantom, splits, cache)
    changed = train(phantom, splits, cache, TINY | {"scaling": "healthy", "smoothing": 2.0})
    assert not changed.trained and changed.key == first.key and changed.map_key != first.map_key
    fit_of = lambda **more: DetectorSpec("brain_cvae", TINY | more).fitted()  # noqa: E731
    assert fit_of(flips="all") == fit_of() != fit_of(intensity="zscore")
    assert changed.mapper.reference > 0
    healthy = splits.val[phantom.labels[splits.val] == 0]
    sharp = train(phantom, splits, cache, TINY | {"scaling": "healthy"}).error_maps(healthy).values
    assert 0.4 < sharp.max(axis=(1, 2)).mean() < 0.6  # 0.5 is the largest of a healthy image


def test_the_monitored_auroc_is_that_of_the_99th_percentile_on_validation(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    maps = fitted.error_maps(splits.val)
    scores = np.percentile(maps.values, 99, axis=(1, 2), method="higher")
    pairs = scores[maps.labels == 1][:, None] > scores[maps.labels == 0]
    assert fitted.history[fitted.best_epoch - 1]["val_auroc"] == pytest.approx(pairs.mean())


def test_early_stopping_watches_healthy_validation_images_alone(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    healthy = phantom.images[splits.val[phantom.labels[splits.val] == 0]]
    losses = fitted.mapper.network.eval_step(as_input(torch.from_numpy(healthy)))
    told = fitted.history[fitted.best_epoch - 1]
    assert told["val_loss"] == pytest.approx(losses["loss"].item(), rel=1e-5)


def test_a_training_that_is_stopped_leaves_nothing(phantom, splits, cache):
    class Pruned(Exception): ...

    def prune(epoch, metrics):
        raise Pruned

    with pytest.raises(Pruned):
        train(phantom, splits, cache, on_epoch=prune)
    assert [path for path in cache.root.iterdir() if path.is_dir()] == []
    assert train(phantom, splits, cache).trained


def test_an_unknown_detector_lists_the_known_ones():
    assert "brain_cvae" in detectors()
    with pytest.raises(TrainingError, match=r"Unknown detector 'brain_vae'\. Known: .*brain_cvae"):
        DetectorSpec("brain_vae").complete()


def test_an_unknown_hyperparameter_lists_the_known_ones():
    with pytest.raises(TrainingError, match=r"no hyperparameter depth\. Known: latent_dim, .*"):
        DetectorSpec("brain_cvae", {"depth": 3}).complete()
