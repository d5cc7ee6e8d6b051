"""Denoising autoencoder: a U-Net that removes coarse noise from healthy slices.

Owns the network, the noise, its loss, its optimizer and how its error is measured. Knows nothing
of files, epochs, precision or of what an error map is used for.
"""

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

RESIDUALS = ("positive", "absolute")
BACKGROUND = 0.05  # our choice: pixels up to here lie outside the head and stay as they are
VALIDATION_NOISE = 0  # the seed of the noise that validation always meets

# How long to train: our choice, on validation images.
SCHEDULE = {"n_epochs": 30, "batch_size": 32, "patience": 15}
# How an error map is made: with the mirrored image's, smoothed (one pixel's error says little),
# and with its size kept. Scaled by image, a tumour's large error makes the rest of its map small:
# on validation images the AUROC of the mean fell from 0.69 to 0.32.
MAPPING = {"flips": "horizontal", "smoothing": 4.0, "scaling": "healthy"}
AFTER_FIT = ("residual",)  # how the error is measured can change without another training


def build(
    *,
    noise_level: float = 0.2,
    noise_resolution: int = 16,
    base_channels: int = 8,
    depth: int = 3,
    lr: float = 1e-3,
    residual: str = "positive",
    image_size: int = 64,
) -> "DenoisingAutoencoder":
    """A DenoisingAutoencoder with its optimizer.

    The noise, its level and its resolution are those of Kascenas et al. 2022, "Denoising
    autoencoders for unsupervised anomaly detection in brain MRI". The network is smaller than
    theirs: our choice, as the other defaults, on validation images.
    """
    rules = {
        f"noise_level must be above 0, got {noise_level}.": noise_level > 0,
        f"noise_resolution must be in [1, image_size], got {noise_resolution}.": (
            1 <= noise_resolution <= image_size
        ),
        f"base_channels must be at least 1, got {base_channels}.": base_channels >= 1,
        f"depth must be in [1, 4], got {depth}.": 1 <= depth <= 4,
        f"lr must be above 0, got {lr}.": lr > 0,
        f"residual must be one of {', '.join(RESIDUALS)}, got {residual!r}.": residual in RESIDUALS,
        f"image_size must be 32, 64 or 128, got {image_size}.": image_size in (32, 64, 128),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    return DenoisingAutoencoder(
        noise_level=noise_level,
        noise_resolution=noise_resolution,
        base_channels=base_channels,
        depth=depth,
        lr=lr,
        residual=residual,
        image_size=image_size,
    )


class DenoisingAutoencoder(nn.Module):
    """A U-Net of `depth` halvings, with Adam, and the noise that it learns to remove.

    Images come as float (b, 1, h, w) in [0, 1] and are resized (antialiased) to `image_size`,
    where loss and error are measured. A tumour is taken for noise: it is removed, and is error.
    """

    def __init__(
        self, *, noise_level, noise_resolution, base_channels, depth, lr, residual, image_size
    ):
        super().__init__()
        self.noise_level, self.noise_resolution = noise_level, noise_resolution
        self.residual, self.image_size = residual, image_size
        widths = [base_channels << level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _block(before, after) for before, after in zip([1, *widths[:-1]], widths, strict=True)
        )
        self.up = nn.ModuleList(
            _block(before + after, after)
            for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(base_channels, 1, 1)
        _widen_weights([*self.down, *self.up])
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr, fused=True)

    def train_step(self, x: Tensor) -> dict[str, Tensor]:
        """One step of the optimizer on noise drawn now; the loss before it."""
        losses = self._losses(self._resize(x), None)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def eval_step(self, x: Tensor) -> dict[str, Tensor]:
        """The same loss on noise that is always the same: it repeats exactly."""
        generator = Generator(x.device).manual_seed(VALIDATION_NOISE)
        return self._losses(self._resize(x), generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat of the size of x, in [0, 1]: the image as it is, without what looks like noise."""
        return _enlarge(self._cleaned(self._resize(x)).clamp(0, 1), x)

    @torch.no_grad()
    def error_map(self, x: Tensor) -> Tensor:
        """|x - x_hat| at the network's resolution, enlarged (bilinear) to the size of x.

        With `residual="positive"` 0 where the image is darker than x_hat, since tumours are
        mostly brighter than healthy tissue.
        """
        resized = self._resize(x)
        error = resized - self._cleaned(resized).clamp(0, 1)
        return _enlarge(error.clamp(min=0) if self.residual == "positive" else error.abs(), x)

    def noise(self, x: Tensor, generator: Generator | None) -> Tensor:
        """Noise for images x (b, 1, s, s): coarse, enlarged (bilinear), shifted, 0 off the head.

        Without a generator torch's own is drawn from. One shift serves the batch.
        """
        side = self.noise_resolution
        drawn = {"device": x.device, "generator": generator}
        coarse = self.noise_level * torch.randn(len(x), 1, side, side, **drawn)
        noise = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        shift = torch.randint(x.shape[-1], (2,), **drawn).tolist()
        return noise.roll(shift, dims=(2, 3)) * (x > BACKGROUND)

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.image_size:
            return x
        return F.interpolate(x, size=self.image_size, mode="bilinear", antialias=True)

    def _cleaned(self, x: Tensor) -> Tensor:
        kept = []  # (b, base << level, s >> level, s >> level) of each level but the deepest
        for level, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if level else x)
            kept.append(x)
        kept.pop()
        for block in self.up:
            enlarged = F.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([enlarged, kept.pop()], dim=1))
        return self.last(x).float()

    def _losses(self, x: Tensor, generator: Generator | None) -> dict[str, Tensor]:
        """The squared error, averaged over pixels."""
        x_hat = self._cleaned(x + self.noise(x, generator))
        return {"loss": F.mse_loss(x_hat, x)}


def _block(before: int, after: int) -> nn.Module:
    """Two 3x3 convolutions, each with a rectifier."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1),
        nn.ReLU(),
    )


def _widen_weights(blocks: list[nn.Module]) -> None:
    """Torch's own weights shrink what differs between images in each layer, until it is lost."""
    for layer in (layer for block in blocks for layer in block if hasattr(layer, "weight")):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")


def _enlarge(small: Tensor, x: Tensor) -> Tensor:
    if small.shape[-2:] == x.shape[-2:]:
        return small
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
