"""GAN: a generator that makes slices of one class, and the discriminator that it learns from.

Owns both networks, their losses and their optimizers. Knows nothing of files, epochs, precision or
of which class it learns.
"""

from itertools import pairwise

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as normalized
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.doubling import DoublingConv2d
from models.vae import doubling_layers, to_full_size

AUGMENTATIONS = ("none", "light")
SHIFT = 1 / 8  # of the side, at most, in the light augmentation (Zhao et al. 2020)
BRIGHTNESS = 0.1  # at most, likewise; our choice: slices differ less than photographs

# How long to train: the paper's; without a judge of the samples the last epoch is kept.
SCHEDULE = {"n_epochs": 500, "batch_size": 64, "patience": 500}
WATCHED = "val_kid"

# For little time: steps are what a GAN needs, so the network is small and the batch too.
QUICK = {
    "image_size": 64,
    "base_channels": 16,
    "lr_generator": 4e-4,
    "lr_discriminator": 4e-4,
    "spectral_norm": True,
    "weight_average": 0.99,
    "augmentation": "light",
    "batch_size": 32,
    "n_epochs": 24,
    "patience": 24,
}
GOOD = QUICK | {"base_channels": 24, "n_epochs": 40, "patience": 40}


def build(
    *,
    latent_dim: int = 100,
    base_channels: int = 64,
    lr_generator: float = 2e-4,
    lr_discriminator: float = 2e-4,
    beta1: float = 0.5,
    label_smoothing: float = 0.0,
    n_discriminator_steps: int = 1,
    spectral_norm: bool = False,
    weight_average: float = 0.0,
    augmentation: str = "none",
    image_size: int = 128,
) -> "GAN":
    """A GAN with its optimizers; the defaults are the paper's networks and training.

    The generator ends in a sigmoid: the paper's code ends in tanh, on images in [0, 1].
    `label_smoothing` is what real images lack of 1 (one-sided; Salimans et al. 2016),
    `spectral_norm` bounds the discriminator (Miyato et al. 2018), `weight_average` is the decay of
    an average of the generator's weights that makes the images (Karras et al. 2018; 0: none), and
    `augmentation="light"` shifts and brightens what the discriminator sees, real or not, so that
    it learns few images by heart later (Zhao et al. 2020).
    """
    rules = {
        f"latent_dim must be at least 1, got {latent_dim}.": latent_dim >= 1,
        f"base_channels must be a multiple of 2, got {base_channels}.": (
            base_channels >= 2 and base_channels % 2 == 0
        ),
        f"lr_generator must be above 0, got {lr_generator}.": lr_generator > 0,
        f"lr_discriminator must be above 0, got {lr_discriminator}.": lr_discriminator > 0,
        f"beta1 must be in [0, 1), got {beta1}.": 0 <= beta1 < 1,
        f"label_smoothing must be in [0, 0.5), got {label_smoothing}.": 0 <= label_smoothing < 0.5,
        f"n_discriminator_steps must be at least 1, got {n_discriminator_steps}.": (
            n_discriminator_steps >= 1
        ),
        f"weight_average must be in [0, 1), got {weight_average}.": 0 <= weight_average < 1,
        f"augmentation must be one of {', '.join(AUGMENTATIONS)}, got {augmentation!r}.": (
            augmentation in AUGMENTATIONS
        ),
        f"image_size must be 32, 64 or 128, got {image_size}.": image_size in (32, 64, 128),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    return GAN(
        latent_dim=latent_dim,
        base_channels=base_channels,
        lr_generator=lr_generator,
        lr_discriminator=lr_discriminator,
        beta1=beta1,
        label_smoothing=label_smoothing,
        n_discriminator_steps=n_discriminator_steps,
        spectral_norm=spectral_norm,
        weight_average=weight_average,
        augmentation=augmentation,
        image_size=image_size,
    )


class GAN(nn.Module):
    """Generator and discriminator, each with Adam; both play the non-saturating game.

    Images come as float (b, 1, h, w) in [0, 1] and are resized (antialiased) to `image_size`;
    what is made is enlarged to 128 x 128.
    """

    def __init__(
        self,
        *,
        latent_dim,
        base_channels,
        lr_generator,
        lr_discriminator,
        beta1,
        label_smoothing,
        n_discriminator_steps,
        spectral_norm,
        weight_average,
        augmentation,
        image_size,
    ):
        super().__init__()
        self.latent_dim, self.label_smoothing = latent_dim, label_smoothing
        self.n_discriminator_steps, self.augmentation = n_discriminator_steps, augmentation
        self.image_size = image_size
        side = image_size // 16
        self.generator = nn.Sequential(
            nn.Linear(latent_dim, 2 * base_channels * side * side),
            nn.Unflatten(1, (2 * base_channels, side, side)),
            *doubling_layers(
                [2 * base_channels, 2 * base_channels, base_channels, base_channels // 2]
            ),
            nn.Identity(),  # where the doubling was: weights keep their names
            DoublingConv2d(base_channels // 2, 1),
            nn.Sigmoid(),  # (b, 1, s, s)
        )
        self.discriminator = nn.Sequential(
            *_halving_layers([1, *(base_channels * 2**i for i in range(4))]),
            nn.Flatten(),
            nn.Linear(8 * base_channels * side * side, 1),  # logits (b, 1)
        )
        if spectral_norm:
            for layer in self.discriminator:
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    normalized(layer)
        self.average = (
            AveragedModel(
                self.generator, multi_avg_fn=get_ema_multi_avg_fn(weight_average), use_buffers=True
            )
            if weight_average
            else None
        )
        adam = {"betas": (beta1, 0.999), "fused": True}
        self.generator_optimizer = torch.optim.Adam(
            self.generator.parameters(), lr=lr_generator, **adam
        )
        self.discriminator_optimizer = torch.optim.Adam(
            self.discriminator.parameters(), lr=lr_discriminator, **adam
        )

    def train_step(self, x: Tensor) -> dict[str, Tensor]:
        """`n_discriminator_steps` of the discriminator, then one of the generator."""
        x = self._resize(x)
        for _ in range(self.n_discriminator_steps):
            fake = self.generator(self._noise(x)).float()  # the last one teaches the generator too
            judged = self.judged(x, fake.detach())
            self.discriminator_optimizer.zero_grad()
            judged["loss_discriminator"].backward()
            self.discriminator_optimizer.step()
            torch.clear_autocast_cache()  # of the weights as they were
        self.discriminator.requires_grad_(False)
        logits = self._judge(fake)
        loss = F.softplus(-logits).mean()
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)
        if self.average:
            self.average.update_parameters(self.generator)
        return {name: value.detach() for name, value in judged.items()} | {
            "loss_generator": loss.detach()
        }

    @torch.no_grad()
    def eval_step(self, x: Tensor) -> dict[str, Tensor]:
        """How the discriminator takes images that it has not learned from.

        `real_share` is the share of them that it calls real; where it learns its training images
        by heart, that share falls.
        """
        logits = self.discriminator(self._resize(x)).float()
        loss = F.softplus(-logits).mean()
        return {"loss_real": loss, "real_share": (logits > 0).float().mean()}

    @torch.no_grad()
    def generate(self, z: Tensor) -> Tensor:
        """Images (n, 1, 128, 128) in [0, 1] of noise (n, latent_dim)."""
        return to_full_size((self.average or self.generator)(z).float())

    def sample_latent(self, n: int, generator: Generator) -> Tensor:
        """Standard normal noise (n, latent_dim), on the generator's device."""
        return torch.randn(n, self.latent_dim, generator=generator, device=generator.device)

    def _noise(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), self.latent_dim, device=x.device)

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.image_size:
            return x
        return F.interpolate(x, size=self.image_size, mode="bilinear", antialias=True)

    def _judge(self, x: Tensor) -> Tensor:
        """Logits (b, 1): above 0 what seems real."""
        if self.augmentation == "light":
            x = augment(x)
        return self.discriminator(x).float()

    def judged(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The discriminator's loss and accuracy over real and made images (b, 1, s, s).

        In one pass, since none of its layers looks at a batch.
        """
        real_logits, fake_logits = self._judge(torch.cat([real, fake])).chunk(2)
        target = torch.full_like(real_logits, 1 - self.label_smoothing)
        loss = (
            F.binary_cross_entropy_with_logits(real_logits, target) + F.softplus(fake_logits).mean()
        )
        accuracy = ((real_logits > 0).float().mean() + (fake_logits < 0).float().mean()) / 2
        return {"loss_discriminator": loss, "accuracy_discriminator": accuracy}


def _halving_layers(channels: list[int]) -> list[nn.Module]:
    """Convolutions that halve the side, one a pair of channels (paper)."""
    return [
        layer
        for before, after in pairwise(channels)
        for layer in (nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
    ]


def augment(x: Tensor) -> Tensor:
    """Shift each image by up to SHIFT of its side and brighten it; differentiable."""
    b, _, side, _ = x.shape
    x = x + BRIGHTNESS * (2 * torch.rand(b, 1, 1, 1, device=x.device) - 1)
    reach = int(side * SHIFT)
    padded = F.pad(x, [reach] * 4)
    rows, columns = torch.randint(0, 2 * reach + 1, (2, b, 1), device=x.device)
    steps = torch.arange(side, device=x.device)
    images = torch.arange(b, device=x.device)[:, None, None]
    shifted = padded[images, 0, (rows + steps)[:, :, None], (columns + steps)[:, None, :]]
    return shifted.unsqueeze(1)
