"""From what a detector finds wrong to an error map: what all detectors have in common.

Owns test-time flips, smoothing, the brain mask and the scaling to [0, 1]. Knows nothing of how
the network inside measures an error, or was trained.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FLIPS = {"none": [()], "horizontal": [(), (-1,)], "all": [(), (-1,), (-2,), (-2, -1)]}
SCALINGS = ("image", "healthy")
INTENSITIES = ("none", "zscore", "histogram")
FOREGROUND = 0.06  # our choice: grey value above which a pixel is not background
CLOSING = 15  # px; our choice: dark ventricles and skull stay inside the head

# The paper's: one look at the image as it is, min-max scaled.
DEFAULTS = {
    "intensity": "none",
    "flips": "none",
    "smoothing": 0.0,
    "brain_mask": False,
    "scaling": "image",
}

Flip = tuple[int, ...]  # the axes that are turned


class ErrorMapper(nn.Module):
    """A detector's network, and how its errors become maps in [0, 1].

    `network.error_map(x)` measures errors (b, 1, h, w) >= 0 of images (b, 1, h, w) in [0, 1].
    `reference` is the largest error of a healthy image, on average; with `scaling="healthy"` an
    error e becomes e / (e + reference): 0.5 is as large as a healthy image has it, and the size
    of an error is not lost, as it is with the paper's min-max scaling of each image. `template`
    is what grey values are matched to before the network sees them (`training.intensity`).
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        intensity: str = "none",
        flips: str = "none",
        smoothing: float = 0.0,
        brain_mask: bool = False,
        scaling: str = "image",
    ):
        super().__init__()
        _check("intensity", intensity, INTENSITIES)
        _check("flips", flips, tuple(FLIPS))
        _check("scaling", scaling, SCALINGS)
        if not 0 <= smoothing <= 16:
            raise ValueError(f"smoothing must be in [0, 16] pixels, got {smoothing}.")
        self.network = network
        self.intensity, self.flips, self.scaling = intensity, flips, scaling
        self.smoothing, self.brain_mask = smoothing, brain_mask
        self.register_buffer("reference", torch.tensor(1.0))
        self.register_buffer("template", torch.zeros(256))

    @torch.no_grad()
    def error_map(self, x: Tensor) -> Tensor:
        """The map in [0, 1] of each image (b, 1, h, w)."""
        return self.scale(self.errors(x))

    @torch.no_grad()
    def errors(self, x: Tensor) -> Tensor:
        """The errors before they are scaled: averaged over flips, smoothed, inside the head."""
        return self.errors_by(lambda flip: self.network.error_map(x.flip(flip)), x)

    @torch.no_grad()
    def errors_by(self, measure: Callable[[Flip], Tensor], x: Tensor) -> Tensor:
        """The same, where `measure` gives the network's errors of the images under a flip."""
        flips = FLIPS[self.flips]
        errors = sum(measure(flip).flip(flip) for flip in flips) / len(flips)
        if self.smoothing:
            errors = _gaussian_blur(errors, self.smoothing)
        return errors * head_mask(x) if self.brain_mask else errors

    def scale(self, errors: Tensor) -> Tensor:
        """Errors >= 0 as a map in [0, 1]; a constant map becomes zeros where each is scaled."""
        if self.scaling == "healthy":
            return errors / (errors + self.reference)
        low, high = errors.amin((2, 3), keepdim=True), errors.amax((2, 3), keepdim=True)
        width = high - low
        return (errors - low) / torch.where(width > 0, width, 1)


def head_mask(x: Tensor) -> Tensor:
    """1 inside the head and 0 on the background around it, (b, 1, h, w) as x."""
    foreground = (x > FOREGROUND).float()
    dilated = F.max_pool2d(foreground, CLOSING, stride=1, padding=CLOSING // 2)
    return -F.max_pool2d(-dilated, CLOSING, stride=1, padding=CLOSING // 2)


def _gaussian_blur(errors: Tensor, sigma: float) -> Tensor:
    """Separable, with the border repeated, so that a constant map stays what it is."""
    radius = max(1, round(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=errors.device, dtype=errors.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(errors, [radius] * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, 1, -1))
    return F.conv2d(rows, kernel.view(1, 1, -1, 1))


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
