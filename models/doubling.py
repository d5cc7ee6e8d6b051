"""A convolution of maps whose side is doubled before, in one.

Owns how it is calculated. Knows nothing of which network it belongs to.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class DoublingConv2d(nn.Conv2d):
    """`nn.Upsample(scale_factor=2)` and then 3 x 3 with zeros beyond the border.

    Equal to the two up to rounding, with the convolution's parameters. Of the 9 pixels below a
    kernel 5 repeat another, so 4 are multiplied and none is copied: with one channel to make it
    takes a half to a quarter of the time.
    """

    def __init__(self, n_in: int, n_out: int):
        super().__init__(n_in, n_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(x, _transposed(self.weight), self.bias, stride=2, padding=1)


def _transposed(weight: Tensor) -> Tensor:
    """(n_out, n_in, 3, 3) -> (n_in, n_out, 4, 4): each weight goes to its pixel's four copies."""
    padded = F.pad(weight.flip(2, 3).transpose(0, 1), [1] * 4)  # (n_in, n_out, 5, 5)
    rows = padded[:, :, 1:] + padded[:, :, :-1]
    return rows[..., 1:] + rows[..., :-1]
