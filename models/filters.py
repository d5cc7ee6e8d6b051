"""Hand-made features of patches, which need neither training nor weights.

Owns how a slice is normalised and what is measured in a patch. Knows nothing of what the features
are compared with.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 8  # positions along each side: a patch is an eighth of the image
CHANNELS = 4
HEAD = 0.04  # our choice: a gray value above it belongs to the head


class FilterBank(nn.Module):
    """x float (b, 1, h, w) in [0, 1] -> (b, 4, 8, 8): a patch's mean, spread, largest and smallest.

    Gray values are first standardised over the head, so that contrast and brightness of the scan
    do not count.
    """

    def forward(self, x: Tensor) -> Tensor:
        z = standardise(x.float())
        mean = F.adaptive_avg_pool2d(z, GRID)
        variance = F.adaptive_avg_pool2d(z.square(), GRID) - mean.square()
        largest, smallest = F.adaptive_max_pool2d(z, GRID), -F.adaptive_max_pool2d(-z, GRID)
        return torch.cat([mean, variance.clamp_min(0).sqrt(), largest, smallest], 1)


def standardise(x: Tensor) -> Tensor:
    """Gray values with mean 0 and spread 1 over the head of each image; 0 outside of it."""
    head = (x > HEAD).float()
    count = head.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    mean = (x * head).sum(dim=(2, 3), keepdim=True) / count
    variance = ((x - mean).square() * head).sum(dim=(2, 3), keepdim=True) / count
    return (x - mean) / (variance.sqrt() + 1e-3) * head
