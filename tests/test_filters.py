"""The filter bank: what it measures in a patch, and what it does not see."""

import pytest
import torch

from models.filters import CHANNELS, FilterBank, standardise

MEAN, SPREAD, LARGEST, SMALLEST = range(CHANNELS)


def slices(n: int = 2, side: int = 128) -> torch.Tensor:
    """Gray heads with a brighter half, on black: float (n, 1, side, side)."""
    x = torch.zeros(n, 1, side, side)
    x[..., side // 8 : -side // 8, side // 8 : -side // 8] = 0.3
    x[..., side // 2 : -side // 8, side // 8 : -side // 8] = 0.5
    return x


@pytest.mark.parametrize("side", [64, 100, 128])
def test_features_have_eight_positions_a_side(side):
    assert FilterBank()(slices(3, side)).shape == (3, CHANNELS, 8, 8)


def test_two_tissues_of_equal_size_are_one_spread_from_their_mean():
    patch = FilterBank()(slices(1))[0, :, 2, 2]
    assert patch[MEAN].item() == pytest.approx(-1, abs=0.02)
    assert patch[SPREAD].item() == pytest.approx(0, abs=1e-2)
    assert patch[LARGEST] == patch[SMALLEST] == pytest.approx(patch[MEAN].item(), abs=1e-3)


def test_a_bright_spot_changes_its_patch_alone():
    x = slices(1)
    x[..., 40, 40] = 1.0
    features = FilterBank()(x)[0]
    assert features[LARGEST].flatten().argmax() == 2 * 8 + 2
    assert features[LARGEST, 2, 2] > 3 * features[LARGEST, 5, 5].abs()
    assert features[SMALLEST, 2, 2] < 0  # the tissue around the spot


def test_brightness_and_contrast_do_not_count():
    x = slices()
    head = x > 0
    darker = torch.where(head, 0.5 * x + 0.1, x)
    assert torch.allclose(standardise(x), standardise(darker), atol=0.05)


def test_the_features_of_a_flipped_slice_are_the_flipped_features():
    x = slices()
    x[..., 20:50, 70:90] = 0.9
    bank = FilterBank()
    assert torch.allclose(bank(x.flip(-1)), bank(x).flip(-1), atol=1e-5)


def test_a_black_image_has_features_of_zero():
    assert FilterBank()(torch.zeros(1, 1, 64, 64)).abs().max() == 0
