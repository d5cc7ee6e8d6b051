"""Depthwise convolutions over maps that are smaller than their kernel.

Owns how their gradient is taken. Knows nothing of which network they belong to.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def pays_off(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> bool:
    """Whether `convolve_small` is for these: (b, c, h, w) by (c, 1, k, k).

    On a CPU the library's gradient of 5 x 5 weights over 4 x 4 maps takes 25 times as long as the
    convolution, and twice as long as ours; over 8 x 8 maps ours takes longer.
    """
    return x.device.type == "cpu" and max(x.shape[-2:]) < weight.shape[-1] and max(stride) == 1


def convolve_small(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`F.conv2d` of stride 1, padded so that maps keep their size, a channel by its own kernel."""
    return _Convolution.apply(x, weight, bias)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight, bias)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = _convolve(gradient, weight.flip(2, 3))
        # every place of a map with every other: (c, h * w, h * w), each pair counted for its tap
        pairs = torch.einsum("bpc,bqc->cpq", _places(gradient), _places(x))
        taps = pairs.new_zeros(len(weight), weight[0].numel() + 1)
        taps.index_add_(1, _taps(x.shape[-2:], weight.shape[-1], x.device), pairs.flatten(1))
        return of_x, taps[:, :-1].view_as(weight), gradient.sum((0, 2, 3))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))


def _places(x: Tensor) -> Tensor:
    """Maps (b, c, h, w) as (b, h * w, c), as channels-last memory lies."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def _taps(size: torch.Size, k: int, device: torch.device) -> Tensor:
    """Which of the k * k weights leads from one place of a map to another; k * k where none."""
    h, w = size
    place = torch.arange(h * w, device=device)
    row = (place // w)[None] - (place // w)[:, None] + k // 2  # (to, from)
    column = (place % w)[None] - (place % w)[:, None] + k // 2
    reached = (row >= 0) & (row < k) & (column >= 0) & (column < k)
    return torch.where(reached, row * k + column, k * k).flatten()
