"""Convolutions, each with the batch norm behind it folded in as it is in evaluation.

Owns how EfficientNet's layers are folded and run. Knows nothing of which network they belong to, or
whether it is trained: gradients reach the layers' own parameters through what is folded.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.depthwise import convolve_small, pays_off


class Folded(NamedTuple):
    """A convolution, its batch norm, and ReLU6 where `clipped`."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    groups: int
    padding: tuple[int, int]  # zeros above and below, left and right
    clipped: bool

    def __call__(self, x: Tensor) -> Tensor:
        x = self._convolve(x)
        return F.hardtanh_(x, 0.0, 6.0) if self.clipped else x

    def _convolve(self, x: Tensor) -> Tensor:
        arguments = (self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        if self.groups == 1 or x.device.type != "cpu" or not self.weight.requires_grad:
            return F.conv2d(x, *arguments)
        # On a CPU a trained depthwise convolution takes three times as long in bfloat16.
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(self.weight.dtype)
            if pays_off(x, self.weight, self.stride):
                return convolve_small(x, self.weight, self.bias)
            return F.conv2d(x, *arguments)


class FoldedBlock(NamedTuple):
    """Convolutions one after the other, beside a shortcut or not."""

    convolutions: list[Folded]
    shortcut: bool

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self.convolutions:
            y = convolution(y)
        return y.add_(x) if self.shortcut else y


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, clipped: bool) -> Folded:
    """A convolution of efficientnet-lite-pytorch, padded by a layer of its own, and its norm."""
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
    # Fewer zeros left and above than right and below: weights of zero in their place, since a copy
    # of the input with its border takes longer than the convolution.
    grown = F.pad(convolution.weight, (right - left, 0, bottom - top, 0))
    weight = grown * scale.view(-1, 1, 1, 1)
    return Folded(
        weight.contiguous(memory_format=torch.channels_last),
        norm.bias - norm.running_mean * scale,
        tuple(convolution.stride),
        convolution.groups,
        (bottom, right),
        clipped,
    )


def fold_stem(stem: nn.Sequential) -> Folded:
    """The first convolution, its norm and its rectifier."""
    return fold(stem[0], stem[1], clipped=True)


def fold_block(block: nn.Module) -> FoldedBlock:
    """An inverted residual of efficientnet-lite-pytorch, without squeeze-and-excitation."""
    widened = block._block_args.expand_ratio != 1
    wide = [fold(block._expand_conv, block._bn0, clipped=True)] if widened else []
    deep = fold(block._depthwise_conv, block._bn1, clipped=True)
    narrow = fold(block._project_conv, block._bn2, clipped=False)
    arguments = block._block_args
    as_large = arguments.stride in (1, [1]) and arguments.input_filters == arguments.output_filters
    return FoldedBlock([*wide, deep, narrow], block.id_skip and as_large)
