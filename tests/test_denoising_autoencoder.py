"""Denoising autoencoder: its noise, its errors, and that it learns."""

import pytest
import torch
from torch import nn

from models.denoising_autoencoder import BACKGROUND, RESIDUALS, build


def slices(n: int = 4) -> torch.Tensor:
    """Bright squares of n sizes on black: float (n, 1, 128, 128)."""
    x = torch.zeros(n, 1, 128, 128)
    for i in range(n):
        x[i, :, 30 - 4 * i : 90 + 4 * i, 30 - 4 * i : 90 + 4 * i] = 0.5 + 0.1 * i
    return x


def constant(value: float, **hyperparameters) -> nn.Module:
    """A network whose every reconstruction is this gray."""
    module = build(**hyperparameters)
    nn.init.zeros_(module.last.weight)
    nn.init.constant_(module.last.bias, value)
    return module


def equal_weights(**hyperparameters) -> nn.Module:
    """A small network; those of one size have the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(image_size=32, **hyperparameters)


def seeded_noise(x: torch.Tensor, seed: int = 0, **hyperparameters) -> torch.Tensor:
    return build(**hyperparameters).noise(x, torch.Generator().manual_seed(seed))


def test_noise_lies_in_the_head_only():
    x = torch.zeros(2, 1, 64, 64)
    x[:, :, 10:50, 10:50] = 0.5
    x[:, :, 0:10, 10:50] = BACKGROUND
    noise = seeded_noise(x)
    assert (noise[x <= BACKGROUND] == 0).all()
    assert (noise[x > BACKGROUND] != 0).all()


def test_noise_is_drawn_at_the_coarse_resolution_and_enlarged_between():
    x = torch.ones(1, 1, 64, 64)
    noise = seeded_noise(x, noise_resolution=4)
    changes = noise.diff(dim=3).abs() > 1e-6
    bends = noise.diff(n=2, dim=3).abs() > 1e-5
    assert changes.float().mean() > 0.5  # it is not in steps
    assert 0 < bends.float().mean() < 0.3  # and straight between the centres of the cells


def test_noise_has_the_level_that_is_asked_for():
    x = torch.ones(64, 1, 64, 64)
    fine = {"noise_resolution": 64}  # nothing is smoothed between cells
    assert seeded_noise(x, **fine, noise_level=0.2).std().item() == pytest.approx(0.2, rel=0.02)
    assert seeded_noise(x, **fine, noise_level=0.4).std().item() == pytest.approx(0.4, rel=0.02)


def test_every_image_has_its_own_noise():
    first, second = seeded_noise(torch.ones(2, 1, 64, 64))
    assert not torch.equal(first, second)


def test_noise_is_shifted_by_another_distance_each_time():
    x = torch.ones(1, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)
    module = build(noise_resolution=2)
    seams = set()
    for _ in range(8):
        jumps = module.noise(x, generator).diff(dim=3).abs().sum(dim=2).flatten()
        largest, second = jumps.topk(2).values
        if largest > 5 * second:  # between cells the noise changes little by little
            seams.add(int(jumps.argmax()))
    assert len(seams) > 3


def test_training_draws_noise_from_torchs_generator():
    x, losses = slices(), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(equal_weights().train_step(x)["loss"])
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_validation_meets_the_same_noise_whatever_torchs_generator_says():
    module, x = build(image_size=32), slices()
    state = torch.get_rng_state()
    first = module.eval_step(x)["loss"]
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(module.eval_step(x)["loss"], first)


def test_only_training_and_validation_add_noise():
    quiet, loud = (equal_weights(noise_level=level) for level in (0.1, 0.9))
    x = slices()
    assert loud.eval_step(x)["loss"] != quiet.eval_step(x)["loss"]
    assert torch.equal(loud.reconstruct(x), quiet.reconstruct(x))
    assert torch.equal(loud.error_map(x), quiet.error_map(x))


@pytest.mark.parametrize("residual", RESIDUALS)
def test_the_error_is_zero_where_the_reconstruction_equals_the_image(residual):
    errors = constant(0.5, residual=residual).error_map(torch.full((1, 1, 128, 128), 0.5))
    assert errors.abs().max() < 1e-6


def test_an_untrained_network_tells_images_apart():
    torch.manual_seed(0)
    reconstructions = build(depth=4)._cleaned(slices())  # before they are cut to [0, 1]
    assert reconstructions.std(dim=0).mean() > 5e-3


def test_reconstructions_repeat_and_draw_no_random_numbers():
    module, x = build(image_size=32), slices()
    state = torch.get_rng_state()
    assert torch.equal(module.reconstruct(x), module.reconstruct(x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("depth", [1, 4])
@pytest.mark.parametrize("residual", RESIDUALS)
def test_reconstructions_and_error_maps_have_the_size_of_the_image(image_size, depth, residual):
    module, x = build(image_size=image_size, depth=depth, residual=residual), slices(2)
    for values in (module.reconstruct(x), module.error_map(x)):
        assert values.shape == x.shape
        assert values.min() >= 0
        assert values.max() <= 1


def test_the_absolute_error_is_the_distance_to_the_reconstruction():
    errors = constant(0.5, residual="absolute").error_map(slices())
    assert errors[0, 0, 60, 60] == 0.0
    assert errors[2, 0, 60, 60].item() == pytest.approx(0.2)
    assert errors[0, 0, 0, 0] == 0.5


def test_the_positive_error_is_zero_where_the_image_is_darker():
    errors = constant(0.5, residual="positive").error_map(slices())
    assert errors[0, 0, 60, 60] == 0.0
    assert errors[2, 0, 60, 60].item() == pytest.approx(0.2)
    assert errors[0, 0, 0, 0] == 0.0


@pytest.mark.parametrize(("value", "kept"), [(1.5, 1.0), (-0.5, 0.0)])
def test_reconstructions_beyond_the_range_of_images_are_cut(value, kept):
    module, x = constant(value, image_size=128, residual="absolute"), slices(1)
    assert (module.reconstruct(x) == kept).all()
    assert torch.equal(module.error_map(x), (x - kept).abs())


def test_it_learns_to_remove_noise_and_what_looks_like_noise():
    module, x = equal_weights(lr=5e-3, base_channels=4, depth=2, residual="absolute"), slices()
    before = module.eval_step(x)["loss"]
    for _ in range(100):
        module.train_step(x)
    assert module.eval_step(x)["loss"] < before / 10
    spotted = x.clone()
    spotted[:, :, 50:66, 50:66] += 0.3
    spot = module.error_map(spotted)[:, :, 54:62, 54:62].mean()
    assert spot > 2 * module.error_map(x)[:, :, 54:62, 54:62].mean()


def test_skips_of_every_level_reach_the_output():
    module = build(image_size=32, depth=2)
    x = torch.rand(1, 1, 32, 32, requires_grad=True)
    module._cleaned(x).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_level", 0.0),
        ("noise_resolution", 0),
        ("noise_resolution", 65),
        ("base_channels", 0),
        ("depth", 0),
        ("depth", 5),
        ("lr", 0.0),
        ("residual", "negative"),
        ("image_size", 96),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        build(**{name: value})
