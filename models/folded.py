"""Convolutions of a frozen network, each with the batch norm behind it folded in.

Owns how EfficientNet's layers are folded and run. Knows nothing of which network they belong to.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights


class Folded(NamedTuple):
    """A convolution, its batch norm, and ReLU6 where `clipped`."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, int]
    groups: int
    padding: tuple[int, int]  # zeros above and below, left and right
    clipped: bool

    def __call__(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, groups=self.groups)
        return F.hardtanh_(x, 0.0, 6.0) if self.clipped else x


class FoldedBlock(NamedTuple):
    """Convolutions one after the other, beside a shortcut or not."""

    convolutions: list[Folded]
    shortcut: bool

    def __call__(self, x: Tensor) -> Tensor:
        y = x
        for convolution in self.convolutions:
            y = convolution(y)
        return y.add_(x) if self.shortcut else y


@torch.no_grad()
def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, clipped: bool) -> Folded:
    """A convolution of efficientnet-lite-pytorch, which pads by a layer of its own, and its norm.

    The norm is taken as it is in evaluation.
    """
    weight, bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
    # Fewer zeros left and above than right and below: weights of zero in their place, since a copy
    # of the input with its border takes longer than the convolution.
    weight = F.pad(weight.detach(), (right - left, 0, bottom - top, 0))
    return Folded(
        weight.contiguous(memory_format=torch.channels_last),
        bias.detach(),
        tuple(convolution.stride),
        convolution.groups,
        (bottom, right),
        clipped,
    )


def fold_block(block: nn.Module) -> FoldedBlock:
    """An inverted residual of efficientnet-lite-pytorch, without squeeze-and-excitation."""
    widened = block._block_args.expand_ratio != 1
    wide = [fold(block._expand_conv, block._bn0, clipped=True)] if widened else []
    deep = fold(block._depthwise_conv, block._bn1, clipped=True)
    narrow = fold(block._project_conv, block._bn2, clipped=False)
    arguments = block._block_args
    as_large = arguments.stride in (1, [1]) and arguments.input_filters == arguments.output_filters
    return FoldedBlock([*wide, deep, narrow], block.id_skip and as_large)
