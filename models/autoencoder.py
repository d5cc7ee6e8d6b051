"""Autoencoder: healthy slices through a small bottleneck, learned by structure or by pixel.

Owns the network, its loss, its optimizer and how its error is measured. Knows nothing of files,
epochs, precision or of what an error map is used for.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Permute

LOSSES = ("ssim", "l1")
RESIDUALS = ("positive", "absolute", "ssim")
SIDE = 4  # of the last feature map, in pixels
SLOPE = 0.2  # of the rectifiers below 0
WINDOW, SIGMA = 11, 1.5  # the Gaussian window of SSIM (Wang et al. 2004)
C1, C2 = 0.01**2, 0.03**2  # SSIM's constants for images in [0, 1] (Wang et al. 2004)

# How long to train: our choice, on validation images.
SCHEDULE = {"n_epochs": 30, "batch_size": 32, "patience": 10}
# How an error map is made: with the mirrored image's, smoothed (one pixel's error says little),
# and with its size kept. Scaled by image, a tumour's large error makes the rest of its map small:
# on validation images the AUROC of the mean fell from 0.7 to 0.2.
MAPPING = {"flips": "horizontal", "smoothing": 4.0, "scaling": "healthy"}
AFTER_FIT = ("residual",)  # how the error is measured can change without another training


def build(
    *,
    latent_dim: int = 64,
    base_channels: int = 16,
    lr: float = 1e-3,
    loss: str = "ssim",
    residual: str = "positive",
    image_size: int = 64,
) -> "Autoencoder":
    """An Autoencoder with its optimizer.

    A loss of structural similarity instead of pixels is that of Bergmann et al. 2019, "Improving
    unsupervised defect segmentation by applying structural similarity to autoencoders". The other
    defaults are our choice, on validation images.
    """
    rules = {
        f"latent_dim must be at least 1, got {latent_dim}.": latent_dim >= 1,
        f"base_channels must be at least 1, got {base_channels}.": base_channels >= 1,
        f"lr must be above 0, got {lr}.": lr > 0,
        f"loss must be one of {', '.join(LOSSES)}, got {loss!r}.": loss in LOSSES,
        f"residual must be one of {', '.join(RESIDUALS)}, got {residual!r}.": residual in RESIDUALS,
        f"image_size must be 32, 64 or 128, got {image_size}.": image_size in (32, 64, 128),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    return Autoencoder(
        latent_dim=latent_dim,
        base_channels=base_channels,
        lr=lr,
        loss=loss,
        residual=residual,
        image_size=image_size,
    )


class Autoencoder(nn.Module):
    """Encoder and decoder around a code of `latent_dim` numbers, with Adam.

    Images come as float (b, 1, h, w) in [0, 1] and are resized (antialiased) to `image_size`,
    where loss and error are measured: what the resizing loses is not counted as error.
    """

    def __init__(self, *, latent_dim, base_channels, lr, loss, residual, image_size):
        super().__init__()
        self.loss, self.residual, self.image_size = loss, residual, image_size
        channels = [base_channels]
        while image_size >> len(channels) > SIDE:
            channels.append(min(2 * channels[-1], 8 * base_channels))
        deepest = channels[-1]
        self.encoder = nn.Sequential(
            *_halving_layers([1, *channels]),  # (b, deepest, 4, 4)
            Permute([0, 2, 3, 1]),  # channels last, as the memory lies: flattening copies nothing
            nn.Flatten(),
            nn.Linear(deepest * SIDE * SIDE, latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, deepest * SIDE * SIDE),
            nn.Unflatten(1, (SIDE, SIDE, deepest)),
            Permute([0, 3, 1, 2]),
            *_doubling_layers([*reversed(channels), 1]),  # logits (b, 1, s, s)
        )
        _widen_weights([*self.encoder, *self.decoder[:-1]])
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr, fused=True)

    def train_step(self, x: Tensor) -> dict[str, Tensor]:
        """One step of the optimizer; the loss before it."""
        losses = self._losses(self._resize(x))
        self.optimizer.zero_grad()
        losses["loss"].backward()
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def eval_step(self, x: Tensor) -> dict[str, Tensor]:
        """The same loss."""
        return self._losses(self._resize(x))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat of the size of x, in [0, 1]."""
        return _enlarge(self._decoded(self._resize(x)), x)

    @torch.no_grad()
    def error_map(self, x: Tensor) -> Tensor:
        """How x and x_hat differ at the network's resolution, enlarged (bilinear) to the size of x.

        In [0, 1], by `residual`: "positive" is x - x_hat where the image is brighter and 0
        elsewhere, "absolute" |x - x_hat|, "ssim" (1 - SSIM) / 2.
        """
        resized = self._resize(x)
        return _enlarge(_errors(self.residual, resized, self._decoded(resized)), x)

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.image_size:
            return x
        return F.interpolate(x, size=self.image_size, mode="bilinear", antialias=True)

    def _decoded(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(self.encoder(x)).float())

    def _losses(self, x: Tensor) -> dict[str, Tensor]:
        kind = "ssim" if self.loss == "ssim" else "absolute"
        return {"loss": _errors(kind, x, self._decoded(x)).mean()}


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of images (b, 1, h, w) in [0, 1], pixel by pixel, in [-1, 1].

    Means, variances and the covariance are those under a Gaussian window (Wang et al. 2004, "Image
    quality assessment: from error visibility to structural similarity", eq. 13 to 16); at the
    border the image is mirrored. Always float32: variances are differences of near-equal numbers.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = x.float(), y.float()
        moments = _windowed_means(torch.cat([x, y, x * x, y * y, x * y], dim=1))
        mean_x, mean_y, mean_xx, mean_yy, mean_xy = moments.split(1, dim=1)
        var_x, var_y = mean_xx - mean_x**2, mean_yy - mean_y**2
        covariance = mean_xy - mean_x * mean_y
        luminance = (2 * mean_x * mean_y + C1) / (mean_x**2 + mean_y**2 + C1)
        return luminance * (2 * covariance + C2) / (var_x + var_y + C2)


def _windowed_means(x: Tensor) -> Tensor:
    """Each channel of (b, c, h, w) under the Gaussian window: its rows, then its columns."""
    offsets = torch.arange(WINDOW, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * SIGMA**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, WINDOW)
    x = F.pad(x, [WINDOW // 2] * 4, mode="reflect")
    rows = F.conv2d(x, weights, groups=x.shape[1])
    return F.conv2d(rows, weights.transpose(2, 3), groups=x.shape[1])


def _errors(kind: str, x: Tensor, x_hat: Tensor) -> Tensor:
    if kind == "ssim":
        return ((1 - ssim(x, x_hat)) / 2).clamp(0, 1)
    return (x - x_hat).clamp(min=0) if kind == "positive" else (x - x_hat).abs()


def _halving_layers(channels: list[int]) -> list[nn.Module]:
    """Each step halves the side; a rectifier follows each."""
    layers = []
    for before, after in pairwise(channels):
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
    return layers


def _doubling_layers(channels: list[int]) -> list[nn.Module]:
    """Each step doubles the side; a rectifier precedes each."""
    layers = []
    for before, after in pairwise(channels):
        layers += [nn.LeakyReLU(SLOPE), nn.ConvTranspose2d(before, after, 4, stride=2, padding=1)]
    return layers


def _widen_weights(layers: list[nn.Module]) -> None:
    """Torch's own weights shrink what differs between images in each layer, until it is lost."""
    for layer in layers:
        if hasattr(layer, "weight"):
            nn.init.kaiming_normal_(layer.weight, SLOPE)


def _enlarge(small: Tensor, x: Tensor) -> Tensor:
    if small.shape[-2:] == x.shape[-2:]:
        return small
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
