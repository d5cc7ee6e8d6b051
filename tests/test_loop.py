"""The training loop: repeatable, stops early, keeps the best epoch, and says what went wrong."""

from itertools import count

import numpy as np
import pytest
import torch
from torch import nn

from models.brain_cvae import build
from training.loop import TrainingError, as_input, fit, seeded

CPU = torch.device("cpu")
COUNTS = {"n_epochs": 15, "batch_size": 4, "patience": 15}
RUN = {"device": CPU, "precision": "fp32", "seed": 0}


def squares(n: int = 20) -> np.ndarray:
    """Bright squares at n places on black: uint8 (n, 128, 128)."""
    images = np.zeros((n, 128, 128), np.uint8)
    for i in range(n):
        images[i, 20 + 2 * i : 60 + 2 * i, 30:90] = 200
    return images


def small(seed: int = 0, **hyperparameters) -> nn.Module:
    with seeded(seed, CPU):
        return build(image_size=32, **{"lr": 1e-2} | hyperparameters)  # learns in seconds


class Scripted(nn.Module):
    """Its weight counts the epochs; its validation loss follows a list."""

    def __init__(self, val_losses: list[float]):
        super().__init__()
        self.val_losses = val_losses
        self.epoch = nn.Parameter(torch.tensor(0.0), requires_grad=False)

    def train_step(self, x):
        self.epoch += 1
        return {"loss": torch.tensor(1.0)}

    def eval_step(self, x):
        return {"loss": torch.tensor(self.val_losses[int(self.epoch) - 1])}

    def reconstruct(self, x):
        return x


def run_scripted(val_losses: list[float], *, patience: int):
    module = Scripted(val_losses)
    counts = {"n_epochs": len(val_losses), "batch_size": 20, "patience": patience}
    return module, fit(module, squares(), squares(), **counts, **RUN)


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten() for value in module.state_dict().values()])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(precision):
    modules = [small(seed) for seed in (0, 0, 1)]
    for module, seed in zip(modules, (0, 0, 1), strict=True):
        torch.rand(seed + 1)  # the global generator is somewhere else each time
        fit(
            module,
            squares(),
            squares(4),
            **COUNTS,
            **RUN | {"seed": seed, "precision": precision},
        )
    first, second, other = map(weights, modules)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_training_leaves_the_global_generators_as_they_were():
    state, deterministic = torch.get_rng_state(), torch.backends.cudnn.deterministic
    fit(small(), squares(), squares(4), **COUNTS, **RUN)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.cudnn.deterministic == deterministic


def test_the_module_ends_with_the_weights_of_the_best_epoch():
    module, training = run_scripted([5.0, 3.0, 4.0, 3.5], patience=5)
    assert training.best_epoch == 2
    assert module.epoch == 2
    assert len(training.history) == 4


def test_training_stops_when_patience_epochs_brought_nothing():
    _, training = run_scripted([5.0, 3.0, 3.0, 4.0, 1.0], patience=2)
    assert training.best_epoch == 2
    assert [epoch["val_loss"] for epoch in training.history] == [5.0, 3.0, 3.0, 4.0]


def test_an_epochs_losses_are_means_over_images_not_batches():
    class Counting(Scripted):
        def train_step(self, x):
            return {"loss": torch.tensor(float(len(x)))}

    counts = COUNTS | {"n_epochs": 1, "batch_size": 16}  # batches of 16 and 4 images
    training = fit(Counting([1.0]), squares(20), squares(), **counts, **RUN)
    assert training.history[0]["train_loss"] == pytest.approx((16 * 16 + 4 * 4) / 20)


def test_each_epoch_is_told_with_its_losses_the_monitors_metrics_and_its_time():
    told = []
    training = fit(
        small(),
        squares(),
        squares(4),
        **COUNTS,
        **RUN,
        monitor=lambda module: {"val_auroc": 0.5},
        on_epoch=lambda epoch, metrics: told.append((epoch, metrics)),
    )
    assert told == list(enumerate(training.history, start=1))
    assert set(told[0][1]) == {
        *("train_loss", "train_reconstruction", "train_kl"),
        *("val_loss", "val_reconstruction", "val_kl", "val_auroc", "seconds"),
    }


def test_an_exception_of_on_epoch_ends_the_training():
    def stop(epoch, metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(small(), squares(), squares(4), **COUNTS, **RUN, on_epoch=stop)


def test_a_loss_that_is_not_finite_ends_the_training_with_the_cure():
    with pytest.raises(TrainingError, match=r"diverged: .* in epoch 1\. Lower lr"):
        fit(small(lr=1e4), squares(), squares(4), **COUNTS, **RUN)


def test_reconstructions_that_are_all_the_same_end_the_training_with_the_cure():
    with pytest.raises(TrainingError, match=r"the same reconstruction\. Lower kl_weight"):
        fit(small(kl_weight=1e5, lr=1e-3), squares(), squares(4), **COUNTS, **RUN)


def test_reconstructions_of_one_gray_value_end_the_training_with_the_cure():
    class Flat(Scripted):
        def reconstruct(self, x):
            return torch.full_like(x, 0.2)

    with pytest.raises(TrainingError, match=r"one gray value\. Lower lr"):
        fit(Flat([1.0] * 15), squares(), squares(4), **COUNTS | {"batch_size": 20}, **RUN)


class Labelled(nn.Module):
    """Keeps what its steps and hooks are given; its loss is a list's next value."""

    def __init__(self, val_losses: tuple[float, ...] = (1.0, 1.0)):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.0), requires_grad=False)
        self.val_losses = iter(val_losses)
        self.trained, self.validated, self.hooks = [], [], []

    def begin_epoch(self, epoch, n_epochs):
        self.weight += 1
        self.hooks.append((epoch, n_epochs))

    def end_epoch(self, metrics):
        self.hooks.append(set(metrics))

    def train_step(self, x, y):
        self.trained += list(zip(x.amax((1, 2, 3)).mul(255).round().int(), y, strict=True))
        return {"loss": torch.tensor(0.5)}

    def eval_step(self, x, y):
        self.validated += list(zip(x.amax((1, 2, 3)).mul(255).round().int(), y, strict=True))
        return {"loss": torch.tensor(next(self.val_losses))}


def run_labelled(module: Labelled, **more):
    """Two epochs on images whose gray value is their label + 1 (training) or + 101."""
    labels = np.arange(10)
    images = np.repeat(labels + 1, 64).reshape(10, 8, 8).astype(np.uint8)
    counts = {"n_epochs": 2, "batch_size": 4, "patience": 2} | more
    training = {"train_labels": labels, "val_labels": labels[:4]}
    return fit(module, images, images[:4] + 100, **counts, **training, **RUN)


def test_each_step_gets_the_labels_of_its_images_shuffled_together():
    module = Labelled()
    run_labelled(module)
    assert [int(gray) for gray, _ in module.trained] != [*range(1, 11)] * 2
    assert all(gray == label + 1 for gray, label in module.trained)
    assert sorted(int(label) for _, label in module.trained[:10]) == list(range(10))
    assert module.validated == [(label + 101, label) for label in range(4)] * 2


def test_the_watched_metric_may_be_one_of_the_monitors():
    distances = iter([3.0, 1.0, 2.0])
    module = Labelled((1.0, 2.0, 3.0))  # the validation loss alone would choose epoch 1
    training = run_labelled(
        module, n_epochs=3, watched="val_kid", monitor=lambda _: {"val_kid": next(distances)}
    )
    assert training.best_epoch == 2
    assert module.weight == 2


def test_patience_counts_epochs_in_which_the_watched_metric_did_not_fall():
    module = Labelled((3.0, 2.0, 1.0))
    training = run_labelled(
        module, n_epochs=3, patience=1, watched="val_kid", monitor=lambda _: {"val_kid": 1.0}
    )
    assert len(training.history) == 2


def test_epochs_are_announced_from_1_and_closed_with_all_their_metrics():
    module = Labelled()
    run_labelled(module, monitor=lambda _: {"val_auroc": 0.5})
    metrics = {"train_loss", "val_loss", "val_auroc"}
    assert module.hooks == [(1, 2), metrics, (2, 2), metrics]


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_below_one_is_named(name):
    with pytest.raises(TrainingError, match=f"{name} must be at least 1, got 0"):
        fit(small(), squares(), squares(4), **COUNTS | {name: 0}, **RUN)


def test_input_is_float_in_0_to_1_with_a_channel():
    x = as_input(torch.tensor([[[0, 51, 255]]], dtype=torch.uint8))
    assert x.shape == (1, 1, 1, 3)
    assert x.flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_uint8_images_train_as_float_ones_do():
    module, plain, epochs = small(), small().to(memory_format=torch.channels_last), count()
    last = {"monitor": lambda _: {"epochs_left": -next(epochs)}, "watched": "epochs_left"}
    training = fit(module, squares(), squares(4), **COUNTS, **RUN, **last)
    x, order = torch.from_numpy(squares()).unsqueeze(1) / 255, torch.Generator().manual_seed(0)
    with seeded(0, CPU):
        for _ in range(COUNTS["n_epochs"]):
            for batch in torch.randperm(len(x), generator=order).split(4):
                plain.train_step(x[batch])
    assert torch.equal(weights(module), weights(plain))
    val_loss = plain.eval_step(torch.from_numpy(squares(4)).unsqueeze(1) / 255)["loss"].item()
    assert training.history[-1]["val_loss"] == pytest.approx(val_loss)
