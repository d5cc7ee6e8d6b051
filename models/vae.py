"""VAE: a variational autoencoder that makes slices of one class.

Owns the network, its losses, its optimizer and the distribution that codes are drawn from. Knows
nothing of files, epochs, precision or of which class it learns.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from models.doubling import DoublingConv2d

LOSSES = ("bce", "mse", "laplacian")
PRIORS = ("normal", "gaussian", "mixture")
AUGMENTATIONS = ("none", "flips")
DEPTHS = (1, 2, 4, 8, 8, 16)  # channels of the encoder's stages, in `base_channels` (paper)
SIDE = 2  # of the last feature map, in pixels (paper, at 128 px)
FULL_SIZE = 128  # of the images that are made
COMPONENTS = 10  # of the mixture (Ghosh et al. 2020)
LEVELS = 3  # of the Laplacian pyramid, as far as the image's size goes
MAX_GRADIENT_NORM = 1000.0  # our choice: summed losses have gradients of this order

# How long to train: our choice; the batch is the paper's.
SCHEDULE = {"n_epochs": 100, "batch_size": 64, "patience": 100}
WATCHED = "val_loss"

# What we chose for Br35H in place of the paper's values; about two minutes a class of 1050 images
# on one core. With batches of 64 and 24 epochs samples stay more blurred in one class than in the
# other, and a classifier at 64 px learns that instead of tumours: its AUROC on real validation
# images was 0.55 after its last epoch (one split).
GOOD = {
    "image_size": 64,
    "base_channels": 16,
    "latent_dim": 64,
    "lr": 2e-3,
    "kl_weight": 0.05,
    "loss": "laplacian",
    "prior": "mixture",
    "augmentation": "flips",
    "batch_size": 32,
    "n_epochs": 30,
    "patience": 30,
}


def build(
    *,
    latent_dim: int = 512,
    base_channels: int = 64,
    lr: float = 2e-4,
    kl_weight: float = 1.0,
    kl_warmup: int = 0,
    loss: str = "bce",
    prior: str = "normal",
    augmentation: str = "none",
    image_size: int = 128,
) -> "VAE":
    """A VAE with its optimizer; the defaults are the paper's network and training.

    `kl_warmup` is the number of epochs in which the weight of the KL term rises to `kl_weight`.
    With a small weight the codes are not normal: `prior="gaussian"` or `"mixture"` draws from what
    is fitted to them after training (Ghosh et al. 2020, "From variational to deterministic
    autoencoders"). `loss="laplacian"` compares Laplacian pyramids (Bojanowski et al. 2018,
    "Optimizing the latent space of generative networks"): edges count as much as areas.
    `augmentation="flips"` turns training images over either axis, as the copies in Br35H are.
    """
    rules = {
        f"latent_dim must be at least 1, got {latent_dim}.": latent_dim >= 1,
        f"base_channels must be at least 1, got {base_channels}.": base_channels >= 1,
        f"lr must be above 0, got {lr}.": lr > 0,
        f"kl_weight must be at least 0, got {kl_weight}.": kl_weight >= 0,
        f"kl_warmup must be at least 0, got {kl_warmup}.": kl_warmup >= 0,
        f"loss must be one of {', '.join(LOSSES)}, got {loss!r}.": loss in LOSSES,
        f"prior must be one of {', '.join(PRIORS)}, got {prior!r}.": prior in PRIORS,
        f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {augmentation!r}.": (
            augmentation in AUGMENTATIONS
        ),
        f"image_size must be 32, 64 or 128, got {image_size}.": image_size in (32, 64, 128),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    return VAE(
        latent_dim=latent_dim,
        base_channels=base_channels,
        lr=lr,
        kl_weight=kl_weight,
        kl_warmup=kl_warmup,
        loss=loss,
        prior=prior,
        augmentation=augmentation,
        image_size=image_size,
    )


class VAE(nn.Module):
    """Encoder and decoder around a code of `latent_dim` numbers, with AdamW.

    Images come as float (b, 1, h, w) in [0, 1] and are resized (antialiased) to `image_size`,
    where losses are measured; what is made is enlarged to 128 x 128.
    """

    def __init__(
        self,
        *,
        latent_dim,
        base_channels,
        lr,
        kl_weight,
        kl_warmup,
        loss,
        prior,
        augmentation,
        image_size,
    ):
        super().__init__()
        self.latent_dim, self.kl_weight, self.kl_warmup = latent_dim, kl_weight, kl_warmup
        self.loss, self.augmentation, self.image_size = loss, augmentation, image_size
        self.warmth = 1.0  # share of `kl_weight` that holds in this epoch
        n_stages = (image_size // SIDE).bit_length() - 1
        channels = [base_channels * depth for depth in DEPTHS[:n_stages]]
        deepest = channels[-1]
        self.encoder = nn.Sequential(*_halving_layers([1, *channels]), nn.Flatten())
        self.to_mu = nn.Linear(deepest * SIDE * SIDE, latent_dim)
        self.to_logvar = nn.Linear(deepest * SIDE * SIDE, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, deepest * SIDE * SIDE),
            nn.Unflatten(1, (deepest, SIDE, SIDE)),
            *doubling_layers([*reversed(channels)]),
            nn.Identity(),  # where the doubling was: weights keep their names
            DoublingConv2d(channels[0], 1),  # logits (b, 1, s, s)
        )
        self.prior = CodePrior(prior, latent_dim)
        self.optimizer = torch.optim.AdamW(
            self.parameters(), lr=lr, betas=(0.5, 0.999), weight_decay=1e-5, fused=True
        )

    def begin_epoch(self, epoch: int, n_epochs: int) -> None:
        """Set the weight of the KL term."""
        self.warmth = min(1.0, epoch / self.kl_warmup) if self.kl_warmup else 1.0

    def train_step(self, x: Tensor) -> dict[str, Tensor]:
        """One step of the optimizer; the losses before it, a batch's mean."""
        x = self._resize(x)
        if self.augmentation == "flips":
            x = flip(x)
        mu, logvar = self._encode(x)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        losses = self._losses(x, self.decoder(z), mu, logvar, self.warmth)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def eval_step(self, x: Tensor) -> dict[str, Tensor]:
        """The same losses at the mean of the code and full KL weight: they repeat exactly."""
        x = self._resize(x)
        mu, logvar = self._encode(x)
        return self._losses(x, self.decoder(mu), mu, logvar, 1.0)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The mean of the code: float (b, latent_dim)."""
        return self._encode(self._resize(x))[0]

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """Images (n, 1, 128, 128) in [0, 1] of codes (n, latent_dim)."""
        return to_full_size(torch.sigmoid(self.decoder(z).float()))

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat (b, 1, 128, 128) in [0, 1], decoded from the mean of the code."""
        return self.generate(self.encode(x))

    @torch.no_grad()
    def sample_latent(self, n: int, generator: Generator) -> Tensor:
        """Codes (n, latent_dim) from the prior, on the generator's device."""
        return self.prior.sample(n, generator)

    @torch.no_grad()
    def learn_prior(self, batches: Iterable[Tensor]) -> None:
        """Fit the prior to the codes of these images; the normal one has nothing to learn."""
        if self.prior.learns:
            self.prior.fit(torch.cat([self.encode(x) for x in batches]))

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.image_size:
            return x
        return F.interpolate(x, size=self.image_size, mode="bilinear", antialias=True)

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.to_mu(h).float(), self.to_logvar(h).float()

    def _losses(self, x, logits, mu, logvar, warmth) -> dict[str, Tensor]:
        """Sums over pixels and over the code, averaged over the batch."""
        reconstruction = _reconstruction_loss(self.loss, logits.float(), x) / len(x)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum() / len(x)
        loss = reconstruction + warmth * self.kl_weight * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


class CodePrior(nn.Module):
    """Where codes are drawn from: a mixture of Gaussians, of one component unless it is "mixture".

    A prior that is not fitted yet is the standard normal one.
    """

    def __init__(self, name: str, latent_dim: int):
        super().__init__()
        self.learns = name != "normal"
        n = COMPONENTS if name == "mixture" else 1
        self.register_buffer("weights", torch.full((n,), 1 / n))
        self.register_buffer("means", torch.zeros(n, latent_dim))
        # a standard normal code needs no matrix: a scalar spreads it, whatever the dimension
        factors = torch.eye(latent_dim).repeat(n, 1, 1) if self.learns else torch.ones(1, 1, 1)
        self.register_buffer("factors", factors)  # z = mean + factor @ noise

    def fit(self, codes: Tensor) -> None:
        """Learn from codes (n, latent_dim); with few of them there are fewer components."""
        n = min(len(self.weights), len(codes))
        spread = float(codes.var(dim=0).mean())
        mixture = GaussianMixture(n, reg_covar=1e-3 * spread + 1e-9, max_iter=50, random_state=0)
        mixture.fit(codes.cpu().double().numpy())
        self.weights.zero_()
        self.weights[:n] = torch.from_numpy(mixture.weights_)
        self.means[:n] = torch.from_numpy(mixture.means_)
        self.factors[:n] = torch.from_numpy(np.linalg.cholesky(mixture.covariances_))

    def sample(self, n: int, generator: Generator) -> Tensor:
        """Codes (n, latent_dim) on the generator's device."""
        device = generator.device
        noise = torch.randn(n, self.means.shape[1], generator=generator, device=device)
        if not self.learns:
            return noise
        which = torch.multinomial(self.weights.to(device), n, True, generator=generator)
        means, factors = self.means.to(device), self.factors.to(device)
        z = torch.empty_like(noise)
        for component in which.unique():
            drawn = which == component
            z[drawn] = means[component] + noise[drawn] @ factors[component].T
        return z


def _halving_layers(channels: list[int]) -> list[nn.Module]:
    """Convolutions that halve the side, one a pair of channels (paper)."""
    return [
        layer
        for before, after in pairwise(channels)
        for layer in (
            nn.Conv2d(before, after, 3, stride=2, padding=1),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2),
        )
    ]


def doubling_layers(channels: list[int]) -> list[nn.Module]:
    """Convolutions after doubling the side, one a pair of channels (paper)."""
    return [
        layer
        for before, after in pairwise(channels)
        for layer in (
            nn.Upsample(scale_factor=2),
            nn.Conv2d(before, after, 3, padding=1),
            nn.BatchNorm2d(after),
            nn.ReLU(),
        )
    ]


def _reconstruction_loss(name: str, logits: Tensor, x: Tensor) -> Tensor:
    if name == "bce":
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    x_hat = torch.sigmoid(logits)
    if name == "mse":
        return F.mse_loss(x_hat, x, reduction="sum")
    return laplacian_distance(x_hat - x)


def laplacian_distance(difference: Tensor) -> Tensor:
    """Sum of |differences| over a Laplacian pyramid, coarse levels counted by the area they cover.

    A pyramid is linear: that of a difference is the difference of the pyramids.
    """
    distance = torch.zeros((), device=difference.device)
    for level in range(LEVELS):
        coarser = F.avg_pool2d(difference, 2)
        detail = difference - F.interpolate(coarser, scale_factor=2, mode="bilinear")
        distance = distance + 2**level * detail.abs().sum()
        difference = coarser
    return distance + 2**LEVELS * difference.abs().sum()


def flip(x: Tensor) -> Tensor:
    """Each image over its vertical axis, its horizontal axis, both or neither, by chance."""
    for axis in (-1, -2):
        turned = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        x = torch.where(turned, x.flip(axis), x)
    return x


def to_full_size(x: Tensor) -> Tensor:
    """Images enlarged (bicubic) to 128 x 128, still in [0, 1]."""
    if x.shape[-1] == FULL_SIZE:
        return x
    return F.interpolate(x, size=FULL_SIZE, mode="bicubic", align_corners=False).clamp(0, 1)
