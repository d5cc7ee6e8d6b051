"""BrainCVAE: its two decoders, its losses, and where its error is measured."""

import pytest
import torch
from torch import nn

from models.brain_cvae import DECODERS, LOSSES, FFTConvTranspose2d, build


def slices(n: int = 4) -> torch.Tensor:
    """Bright squares of n sizes on black: float (n, 1, 128, 128)."""
    x = torch.zeros(n, 1, 128, 128)
    for i in range(n):
        x[i, :, 30 - 4 * i : 90 + 4 * i, 30 - 4 * i : 90 + 4 * i] = 0.5 + 0.1 * i
    return x


def gray(image_size: int) -> nn.Module:
    """A BrainCVAE whose every reconstruction is 0.5."""
    module = build(image_size=image_size)
    last = module.decoder[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return module


def values_and_gradients(layer: nn.Module, x: torch.Tensor, upstream: torch.Tensor):
    y = layer(x)
    return y, *torch.autograd.grad(y, [x, *layer.parameters()], upstream)


@pytest.mark.parametrize(("channels", "kernel", "side"), [((64, 32), 33, 32), ((32, 1), 65, 64)])
def test_the_fft_convolution_equals_torchs_in_values_and_gradients(channels, kernel, side):
    torch.manual_seed(0)
    exact = nn.ConvTranspose2d(*channels, kernel).double()
    fft = FFTConvTranspose2d(*channels, kernel)
    fft.load_state_dict(exact.state_dict())
    x = torch.randn(2, channels[0], side, side, requires_grad=True)
    upstream = torch.randn(2, channels[1], side + kernel - 1, side + kernel - 1)
    for expected, actual in zip(
        values_and_gradients(exact, x.double(), upstream.double()),
        values_and_gradients(fft, x, upstream),
        strict=True,
    ):
        assert (actual - expected).abs().max() < 1e-6 * expected.abs().max()


def test_the_papers_decoder_has_kernels_of_33_and_65():
    layers = [x for x in build(decoder="paper").decoder if isinstance(x, nn.ConvTranspose2d)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(64, 32, 33, 33), (32, 1, 65, 65)]


@pytest.mark.parametrize("image_size", [32, 60, 128])
@pytest.mark.parametrize("decoder", DECODERS)
def test_reconstructions_and_error_maps_have_the_size_of_the_image(decoder, image_size):
    module, x = build(decoder=decoder, image_size=image_size), slices(2)
    for values in (module.reconstruct(x), module.error_map(x)):
        assert values.shape == x.shape
        assert values.min() >= 0
        assert values.max() <= 1


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_teaches_to_reconstruct(loss):
    torch.manual_seed(0)
    module, x = build(loss=loss, image_size=32, kl_weight=0), slices()
    before = module.error_map(x).mean()
    for _ in range(40):
        module.train_step(x)
    assert module.error_map(x).mean() < before / 3


def test_losses_are_sums_over_pixels_and_code_averaged_over_images():
    module = gray(32)
    nn.init.zeros_(module.to_mu.weight)
    nn.init.zeros_(module.to_logvar.weight)
    nn.init.ones_(module.to_mu.bias)
    nn.init.zeros_(module.to_logvar.bias)
    losses = module.eval_step(torch.zeros(3, 1, 128, 128))
    assert losses["reconstruction"].item() == pytest.approx(32 * 32 * 0.25)
    assert losses["kl"].item() == pytest.approx(64 * 0.5)  # mu 1, variance 1: a half a number
    assert losses["loss"].item() == pytest.approx(256 + 0.1 * 32)


def test_reconstructions_repeat_and_draw_no_random_numbers():
    module, x = build(image_size=32), slices()
    state = torch.get_rng_state()
    assert torch.equal(module.reconstruct(x), module.reconstruct(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_detail_that_the_resizing_loses_is_not_counted_as_error():
    stripes = torch.tensor([0.0, 1.0, 1.0, 0.0]).repeat(32).expand(1, 1, 128, 128)
    assert gray(128).error_map(stripes).min() == 0.5
    inside = gray(32).error_map(stripes)[..., 8:-8]  # where the filter meets no border
    assert inside.max() < 1e-6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("lr", 0.0),
        ("kl_weight", -1.0),
        ("loss", "ssim"),
        ("decoder", "large"),
        ("image_size", 130),
        ("image_size", 28),
        ("image_size", 66),
    ],
)
def test_a_hyperparameter_out_of_its_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        build(**{name: value})
