"""Autoencoder: structural similarity, its errors, and that it learns."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from models.autoencoder import LOSSES, RESIDUALS, build, ssim


def slices(n: int = 4) -> torch.Tensor:
    """Bright squares of n sizes on black: float (n, 1, 128, 128)."""
    x = torch.zeros(n, 1, 128, 128)
    for i in range(n):
        x[i, :, 30 - 4 * i : 90 + 4 * i, 30 - 4 * i : 90 + 4 * i] = 0.5 + 0.1 * i
    return x


def gray(**hyperparameters) -> nn.Module:
    """An autoencoder whose every reconstruction is 0.5."""
    module = build(**hyperparameters)
    last = module.decoder[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return module


def scipys_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Wang et al.'s formula over scipy's Gaussian filter, of 11 taps at this `truncate`."""

    def mean(image):
        return gaussian_filter(image, 1.5, mode="mirror", truncate=3.5)

    covariance = mean(x * y) - mean(x) * mean(y)
    variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
    return (
        (2 * mean(x) * mean(y) + 1e-4)
        * (2 * covariance + 9e-4)
        / ((mean(x) ** 2 + mean(y) ** 2 + 1e-4) * (variances + 9e-4))
    )


def test_an_image_is_wholly_similar_to_itself():
    x = slices()
    assert (ssim(x, x) - 1).abs().max() < 1e-5


def test_flat_images_differ_by_their_brightness_alone():
    dark, bright = torch.full((1, 1, 32, 32), 0.2), torch.full((1, 1, 32, 32), 0.8)
    by_hand = (2 * 0.2 * 0.8 + 1e-4) / (0.2**2 + 0.8**2 + 1e-4)
    assert (ssim(dark, bright) - by_hand).abs().max() < 1e-3


def test_similarity_equals_the_formula_over_scipys_gaussian_filter():
    rng = np.random.default_rng(0)
    x = gaussian_filter(rng.random((40, 48)), 1)
    y = 0.7 * x + 0.3 * gaussian_filter(rng.random((40, 48)), 2)
    computed = ssim(*(torch.from_numpy(image).float()[None, None] for image in (x, y)))
    assert np.abs(computed[0, 0].numpy() - scipys_ssim(x, y)).max() < 1e-4


def test_similarity_is_measured_in_full_precision_under_autocast():
    x, y = slices(), slices().flip(0)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = ssim(x, y)
    assert torch.equal(rounded, ssim(x, y))


def test_an_inverted_pattern_is_dissimilar():
    stripes = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(8).expand(1, 1, 32, 32)
    assert ssim(stripes, 1 - stripes).max() < -0.5


@pytest.mark.parametrize("image_size", [32, 64, 128])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_reconstructions_and_error_maps_have_the_size_of_the_image(image_size, loss, residual):
    module, x = build(image_size=image_size, loss=loss, residual=residual), slices(2)
    for values in (module.reconstruct(x), module.error_map(x)):
        assert values.shape == x.shape
        assert values.min() >= 0
        assert values.max() <= 1


@pytest.mark.parametrize("residual", RESIDUALS)
def test_the_error_is_zero_where_the_reconstruction_equals_the_image(residual):
    errors = gray(residual=residual).error_map(torch.full((1, 1, 128, 128), 0.5))
    assert errors.abs().max() < 1e-6


def test_the_absolute_error_is_the_distance_to_the_reconstruction():
    errors = gray(residual="absolute").error_map(slices())
    assert errors[0, 0, 60, 60] == 0.0
    assert errors[2, 0, 60, 60].item() == pytest.approx(0.2)
    assert errors[0, 0, 0, 0] == 0.5


def test_the_positive_error_is_zero_where_the_image_is_darker():
    errors = gray(residual="positive").error_map(slices())
    assert errors[0, 0, 60, 60] == 0.0
    assert errors[2, 0, 60, 60].item() == pytest.approx(0.2)
    assert errors[0, 0, 0, 0] == 0.0


def test_the_ssim_error_is_half_of_what_similarity_lacks():
    x = slices(2)
    errors = gray(residual="ssim", image_size=128).error_map(x)
    assert torch.equal(errors, (1 - ssim(x, torch.full_like(x, 0.5))) / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_teaches_to_reconstruct(loss):
    torch.manual_seed(0)
    module, x = build(loss=loss, residual="absolute", image_size=32, lr=3e-3), slices()
    before = module.error_map(x).mean()
    for _ in range(60):
        module.train_step(x)
    assert module.error_map(x).mean() < before / 3


@pytest.mark.parametrize(("loss", "residual"), [("ssim", "ssim"), ("l1", "absolute")])
def test_the_loss_is_the_mean_of_its_error_whatever_the_residual(loss, residual):
    module, x = build(loss=loss, residual=residual, image_size=128), slices()
    error = module.error_map(x).mean().item()
    module.residual = "positive"
    assert module.eval_step(x)["loss"].item() == pytest.approx(error, rel=1e-5)
    assert module.train_step(x)["loss"].item() == pytest.approx(error, rel=1e-5)


def test_an_untrained_network_tells_images_apart():
    torch.manual_seed(0)
    reconstructions = build(image_size=128).reconstruct(slices())
    assert reconstructions.std(dim=0).mean() > 1e-3


def test_reconstructions_repeat_and_draw_no_random_numbers():
    module, x = build(image_size=32), slices()
    state = torch.get_rng_state()
    assert torch.equal(module.reconstruct(x), module.reconstruct(x))
    assert torch.equal(module.eval_step(x)["loss"], module.eval_step(x)["loss"])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_code_has_as_many_numbers_as_asked_for():
    assert build(latent_dim=5).encoder(torch.zeros(3, 1, 64, 64)).shape == (3, 5)


def test_detail_that_the_resizing_loses_is_not_counted_as_error():
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(32).expand(1, 1, 128, 128)
    assert gray(residual="absolute", image_size=128).error_map(stripes).min() == 0.5
    inside = gray(residual="absolute", image_size=32).error_map(stripes)[..., 8:-8]
    assert inside.max() < 1e-6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("base_channels", 0),
        ("lr", 0.0),
        ("loss", "mse"),
        ("residual", "negative"),
        ("image_size", 96),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        build(**{name: value})
