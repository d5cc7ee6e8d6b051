"""A convolution after doubling, in one: as torch's two layers, with their gradients."""

import pytest
import torch
from torch import nn

from models.doubling import DoublingConv2d


@pytest.mark.parametrize(("n_in", "n_out", "h", "w"), [(3, 1, 4, 5), (2, 4, 1, 1), (5, 2, 8, 8)])
def test_it_doubles_and_convolves_as_two_layers_do(n_in, n_out, h, w):
    ours = DoublingConv2d(n_in, n_out).double()
    convolution = nn.Conv2d(n_in, n_out, 3, padding=1).double()
    convolution.load_state_dict(ours.state_dict())
    theirs = nn.Sequential(nn.Upsample(scale_factor=2), convolution)
    x = torch.randn(2, n_in, h, w, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x), theirs(x))
    found, expected = (
        torch.autograd.grad(network(x).square().sum(), (x, *network.parameters()))
        for network in (ours, theirs)
    )
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other)
