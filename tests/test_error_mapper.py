"""What all detectors have in common: flips, smoothing, brain mask, scaling."""

import pytest
import torch
from torch import nn

from models.error_mapper import ErrorMapper, head_mask


class Brightness(nn.Module):
    """An error that is the image itself, and twice as large in its left half."""

    def error_map(self, x):
        weights = torch.ones(x.shape[-1])
        weights[: x.shape[-1] // 2] = 2
        return x * weights


def mapper(**options) -> ErrorMapper:
    return ErrorMapper(Brightness(), **options)


def one_image(rows) -> torch.Tensor:
    return torch.tensor(rows).float()[None, None]


def test_each_map_is_scaled_by_its_own_minimum_and_maximum():
    errors = torch.tensor([[[[1.0, 2], [3, 5]]], [[[10.0, 10], [20, 30]]]])
    maps = mapper().scale(errors)
    assert maps.tolist() == [[[[0, 0.25], [0.5, 1]]], [[[0, 0], [0.5, 1]]]]


def test_a_constant_map_becomes_zeros():
    assert not mapper().scale(torch.full((2, 1, 3, 3), 0.7)).any()


def test_scaling_by_healthy_errors_keeps_their_size():
    maps = mapper(scaling="healthy")
    maps.reference.fill_(3.0)
    scaled = maps.scale(one_image([[0, 1], [3, 9]]))
    assert scaled.squeeze().tolist() == [[0, 0.25], [0.5, 0.75]]


def test_errors_are_averaged_over_flips_where_the_image_has_them():
    x = one_image([[0.0, 0.5], [0.25, 0.0]])
    assert mapper().errors(x).squeeze().tolist() == [[0, 0.5], [0.5, 0]]
    for flips in ("horizontal", "all"):
        assert mapper(flips=flips).errors(x).squeeze().tolist() == [[0, 0.75], [0.375, 0]]


def test_smoothing_keeps_a_constant_map_and_spreads_a_peak():
    smooth = mapper(smoothing=2.0)
    flat = torch.zeros(1, 1, 16, 32)
    flat[..., :16], flat[..., 16:] = 0.3, 0.6  # the left half counts twice
    torch.testing.assert_close(smooth.errors(flat), torch.full((1, 1, 16, 32), 0.6))
    peak = torch.zeros(1, 1, 33, 33)
    peak[0, 0, 16, 24] = 1.0
    spread = smooth.errors(peak)[0, 0]
    assert spread.argmax() == 16 * 33 + 24
    assert spread[16, 26] / spread[16, 24] == pytest.approx(torch.tensor(-0.5).exp().item())
    assert spread.sum() == pytest.approx(1.0)


def test_the_brain_mask_counts_a_dark_hole_and_leaves_the_background_out():
    x = torch.zeros(1, 1, 64, 64)
    x[..., 16:48, 16:48] = 0.5
    x[..., 28:34, 28:34] = 0.0  # a ventricle
    mask = head_mask(x)[0, 0]
    assert mask[16:48, 16:48].all()
    assert mask.sum() == 32 * 32
    errors = ErrorMapper(Constant(), brain_mask=True).errors(x)
    torch.testing.assert_close(errors[0, 0], mask)


class Constant(nn.Module):
    """An error of 1 everywhere."""

    def error_map(self, x):
        return torch.ones_like(x)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"flips": "both"}, r"flips must be one of none, horizontal, all, got 'both'\."),
        ({"scaling": "max"}, r"scaling must be one of image, healthy, got 'max'\."),
        ({"intensity": "log"}, r"intensity must be one of none, zscore, histogram, got 'log'\."),
        ({"smoothing": -1.0}, r"smoothing must be in \[0, 16\] pixels, got -1\.0\."),
    ],
)
def test_an_unknown_option_lists_the_known_ones(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        mapper(**options)
