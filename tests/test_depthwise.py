"""Depthwise convolutions over small maps: as the library's, with its gradients."""

import pytest
import torch
from torch.nn import functional as F

from models.depthwise import convolve_small, pays_off


def drawn(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize(("h", "w", "k"), [(4, 4, 5), (2, 3, 5), (1, 1, 3), (6, 4, 7), (8, 8, 3)])
def test_it_convolves_and_learns_as_the_library_does(h, w, k):
    x, weight, bias, gradient = drawn(2, 3, h, w), drawn(3, 1, k, k), drawn(3), drawn(2, 3, h, w)
    ours = convolve_small(x, weight, bias)
    theirs = F.conv2d(x, weight, bias, padding=k // 2, groups=3)
    torch.testing.assert_close(ours, theirs)
    found, expected = (
        torch.autograd.grad(y, (x, weight, bias), gradient.detach()) for y in (ours, theirs)
    )
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)


def test_it_is_for_maps_smaller_than_the_kernel():
    weight = torch.zeros(3, 1, 5, 5)
    assert pays_off(torch.zeros(2, 3, 4, 4), weight, (1, 1))
    assert not pays_off(torch.zeros(2, 3, 4, 5), weight, (1, 1))
    assert not pays_off(torch.zeros(2, 3, 4, 4), weight, (2, 2))
