"""A fitted generator: trained once on one class, the same images for the same seed, or refused."""

import numpy as np
import pytest
import torch

from models import gan, vae
from training import generator
from training.cache import Cache
from training.generator import (
    GeneratorFailed,
    GeneratorSpec,
    fit_generator,
    generator_module,
    generators,
)
from training.loop import TrainingError, as_input

CPU = torch.device("cpu")
SCHEDULE = {"n_epochs": 4, "batch_size": 4, "patience": 4}
SMALL = {"image_size": 32, "latent_dim": 8} | SCHEDULE
TINY = {
    "vae": SMALL | {"base_channels": 8, "lr": 5e-3, "kl_weight": 0.001},
    "gan": SMALL | {"base_channels": 4},
}
NAMES = pytest.mark.parametrize("name", sorted(generators()))


def squares(n: int = 24, seed: int = 0) -> np.ndarray:
    """Squares of several places and brightnesses on black: uint8 (n, 128, 128)."""
    rng = np.random.default_rng(seed)
    images = np.zeros((n, 128, 128), np.uint8)
    for image in images:
        (y, x), grey = rng.integers(8, 56, 2), rng.integers(90, 250)
        image[y : y + 48, x : x + 48] = grey
    return images


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def train(cache: Cache, name: str = "vae", images=None, label=0, seed=0, **changes):
    news = {key: changes.pop(key) for key in NEWS if key in changes}
    spec = GeneratorSpec(name, TINY[name] | changes, seed)
    images = squares() if images is None else images
    parts = images[:-6], images[-6:]
    run = {"cache": cache, "device": CPU, "precision": "fp32"}
    return fit_generator(spec, *parts, label=label, **run, **news)


NEWS = ("judge", "on_epoch", "on_train", "on_samples")


class Brightness:
    """Judges samples by a list of numbers, one a look."""

    name = "brightness"

    def __init__(self, kids: list[float]):
        self.kids, self.seen = kids, []

    def __call__(self, samples: np.ndarray) -> dict[str, float]:
        self.seen.append(samples)
        return {"val_kid": self.kids[len(self.seen) - 1]}


def weights(fitted) -> torch.Tensor:
    return torch.cat([value.flatten().float() for value in fitted.network.state_dict().values()])


def test_the_paper_has_two_generators():
    assert {"vae", "gan"} <= set(generators())
    assert "brain_cvae" not in generators()


@NAMES
def test_every_generator_makes_full_images_from_its_noise(name):
    network = GeneratorSpec(name, TINY[name]).build().eval()
    z = network.sample_latent(3, torch.Generator().manual_seed(0))
    x = network.generate(z)
    assert z.shape == (3, network.latent_dim)
    assert x.shape == (3, 1, 128, 128)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < x.max() <= 1


@pytest.mark.slow
@NAMES
def test_every_generator_takes_a_step_with_the_paper_s_values(name):
    spec = GeneratorSpec(name)
    assert spec.complete().hyperparameters["image_size"] == 128
    network, x = spec.build(), as_input(torch.from_numpy(squares(4)))
    losses = network.train_step(x) | network.eval_step(x)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert network.generate(network.sample_latent(2, torch.Generator())).shape == (2, 1, 128, 128)


@pytest.mark.parametrize(
    ("name", "values"), [("vae", vae.GOOD), ("gan", gan.GOOD), ("gan", gan.QUICK)]
)
def test_the_values_that_we_chose_build(name, values):
    chosen = GeneratorSpec(name, values).complete().hyperparameters
    assert values.items() <= chosen.items()
    assert GeneratorSpec(name, values).build().image_size == 64


@NAMES
def test_an_equal_training_is_found_and_makes_the_same_images(name, cache):
    epochs, starts = [], []
    news = {"on_epoch": lambda n, m: epochs.append(n), "on_train": lambda: starts.append(1)}
    first, again = train(cache, name, **news), train(cache, name, **news)
    assert (first.trained, again.trained) == (True, False)
    assert (epochs, starts) == ([1, 2, 3, 4], [1])
    assert (again.key, again.history, again.best_epoch) == (
        first.key,
        first.history,
        first.best_epoch,
    )
    assert torch.equal(weights(first), weights(again))
    np.testing.assert_array_equal(first.sample(5, seed=1), again.sample(5, seed=1))


@NAMES
def test_samples_are_grey_images_that_a_seed_repeats(name, cache):
    fitted = train(cache, name)
    samples = fitted.sample(70, seed=3)
    assert samples.shape == (70, 128, 128)
    assert samples.dtype == np.uint8
    np.testing.assert_array_equal(samples, fitted.sample(70, seed=3))
    assert (samples != fitted.sample(70, seed=4)).any()


@NAMES
def test_an_interpolation_begins_and_ends_with_the_two_samples(name, cache):
    fitted = train(cache, name)
    way = fitted.interpolate(1, 2, 5).astype(int)
    assert way.shape == (5, 128, 128)
    assert abs(way[0] - fitted.sample(1, seed=1)[0]).max() <= 1
    assert abs(way[-1] - fitted.sample(1, seed=2)[0]).max() <= 1
    apart = abs(way[0] - way[-1]).mean()
    assert abs(way[2] - way[0]).mean() < apart and abs(way[2] - way[-1]).mean() < apart


def test_an_interpolation_between_equal_samples_stands_still(cache):
    way = train(cache).interpolate(1, 1, 3)
    assert np.ptp(way.astype(int), axis=0).max() <= 1


@pytest.mark.parametrize("change", ["hyperparameter", "seed", "images", "label", "judge"])
def test_another_training_has_another_key(cache, change):
    key = train(cache).key
    other = {
        "hyperparameter": lambda: train(cache, kl_weight=0.5),
        "seed": lambda: train(cache, seed=1),
        "images": lambda: train(cache, images=squares(seed=1)),
        "label": lambda: train(cache, label=1),
        "judge": lambda: train(cache, judge=Brightness([1.0] * 4)),
    }[change]()
    assert other.trained
    assert other.key != key


def test_samples_are_shown_on_the_way_at_the_same_noise_and_kept(cache):
    shown = {}
    fitted = train(cache, on_samples=shown.__setitem__)
    assert list(shown) == [1, 2, 3, 4]
    assert all(samples.shape == (16, 128, 128) for samples in shown.values())
    kept = train(cache).progress()
    assert list(kept) == [1, 2, 3, 4]
    for epoch, samples in shown.items():
        np.testing.assert_array_equal(kept[epoch], samples)
    again = fitted.sample(200, seed=0)[:16].astype(int)  # rounded anew, in batches of other sizes
    assert np.abs(again - shown[fitted.best_epoch]).max() <= 1


@pytest.fixture
def of_any_contrast(monkeypatch):
    """Let the judge see what a hardly trained generator makes."""
    monkeypatch.setattr(generator, "EMPTY_CONTRAST", 0.0)


def test_a_long_training_is_looked_at_ten_times_and_at_its_ends(cache, of_any_contrast):
    shown = []
    train(cache, n_epochs=25, patience=25, on_samples=lambda epoch, _: shown.append(epoch))
    assert shown == [1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 25]


def test_the_judge_chooses_the_epoch_of_a_gan(cache, of_any_contrast):
    judge = Brightness([0.4, 0.1, 0.3, 0.2])
    fitted = train(cache, "gan", judge=judge)
    assert fitted.best_epoch == 2
    assert [epoch["val_kid"] for epoch in fitted.history] == judge.kids
    np.testing.assert_array_equal(fitted.sample(200, seed=0), judge.seen[1])


def test_between_two_looks_the_last_measure_stands(cache, of_any_contrast):
    judge = Brightness([float(look) for look in range(14)])
    fitted = train(cache, "gan", n_epochs=25, patience=25, judge=judge)
    assert [epoch["val_kid"] for epoch in fitted.history[:6]] == [0, 1, 1, 2, 2, 3]


def test_an_epoch_of_empty_images_is_never_the_best(cache, monkeypatch):
    class Emptied(gan.GAN):
        """Makes images of one grey, each another, in its first epoch."""

        def begin_epoch(self, epoch, n_epochs):
            self.epoch = epoch

        def generate(self, z):
            flat = torch.sigmoid(z[:, :1, None, None]).expand(-1, 1, 128, 128)
            return flat if self.epoch == 1 else as_input(torch.from_numpy(squares(len(z))))

    monkeypatch.setattr(gan, "GAN", Emptied)
    fitted = train(cache, "gan", judge=Brightness([0.3, 0.2, 0.1]))
    assert [epoch["val_kid"] for epoch in fitted.history] == [generator.WORST_KID, 0.3, 0.2, 0.1]
    assert fitted.history[0]["sample_spread"] > generator.COLLAPSED_SPREAD
    assert fitted.best_epoch == 4


def test_without_a_judge_the_last_epoch_of_a_gan_is_kept(cache):
    assert train(cache, "gan").best_epoch == 4


def test_a_training_that_is_stopped_leaves_nothing(cache):
    class Pruned(Exception): ...

    def prune(epoch, metrics):
        raise Pruned

    with pytest.raises(Pruned):
        train(cache, on_epoch=prune)
    assert [path for path in cache.root.iterdir() if path.is_dir()] == []
    assert train(cache).trained


@NAMES
def test_a_training_that_a_signal_stopped_goes_on_to_the_same_images(
    name, cache, tmp_path, of_any_contrast
):
    whole, before = train(Cache(tmp_path / "whole"), name), []

    def stop(epoch, metrics):
        if epoch == 3:
            raise KeyboardInterrupt
        before.append(dict(metrics))

    with pytest.raises(KeyboardInterrupt):
        train(cache, name, on_epoch=stop)
    shown, heard = {}, []
    again = train(
        cache,
        name,
        on_epoch=lambda epoch, _: heard.append(epoch),
        on_samples=shown.__setitem__,
    )
    assert heard == list(shown) == [1, 2, 3, 4]
    assert again.history[:2] == before  # in the same seconds: they were not trained again
    assert again.best_epoch == whole.best_epoch
    assert torch.equal(weights(again), weights(whole))
    for epoch, pictures in whole.progress().items():
        np.testing.assert_array_equal(again.progress()[epoch], pictures)


@NAMES
def test_a_generator_that_diverges_has_failed(name, cache):
    rates = ("lr",) if name == "vae" else ("lr_generator", "lr_discriminator")
    with pytest.raises(GeneratorFailed, match="diverged"):
        train(cache, name, **dict.fromkeys(rates, 1e30))


def test_a_generator_whose_samples_are_all_alike_has_failed(cache):
    with pytest.raises(GeneratorFailed, match="collapsed"):
        train(cache, lr=1e-9)  # it learns nothing, and makes one shade of grey


def test_a_class_of_one_image_is_refused(cache):
    with pytest.raises(TrainingError, match="at least 2 training images of its class, got 1"):
        train(cache, images=squares(7))


def test_an_unknown_generator_lists_the_known_ones():
    with pytest.raises(TrainingError, match=r"Unknown generator 'gans'\. Known: gan, vae"):
        generator_module("gans")


def test_an_unknown_hyperparameter_lists_the_known_ones():
    with pytest.raises(TrainingError, match=r"vae has no hyperparameter depth\. Known: latent_dim"):
        GeneratorSpec("vae", {"depth": 3}).complete()
