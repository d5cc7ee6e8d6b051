"""BrainCVAE: a variational autoencoder that learns what healthy slices look like.

Owns the network, its losses, its optimizer and how its error is measured. Knows nothing of
files, epochs, precision or of what an error map is used for.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Permute

LOSSES = ("mse", "l1", "bce")
DECODERS = ("small", "paper")
CHANNELS = 64  # of the encoder's last convolution (paper)
SQUEEZED = 16  # our choice: channels that the linear layers see; weights of 13 MB, not 51
MAX_GRADIENT_NORM = 100.0  # our choice: summed losses have gradients of this order

# How long to train: our choice, on validation images; the paper's batch_size, but not its 10
# epochs of a loss that is constant.
SCHEDULE = {"n_epochs": 20, "batch_size": 64, "patience": 5}


def build(
    *,
    latent_dim: int = 64,
    lr: float = 1e-3,
    kl_weight: float = 0.1,
    loss: str = "mse",
    decoder: str = "small",
    image_size: int = 128,
) -> "BrainCVAE":
    """A BrainCVAE with its optimizer.

    `latent_dim`, `lr` and the encoder's convolutions are the paper's. Its loss is not:
    cross-entropy over one channel is constant. `kl_weight` is our choice; 0.1 and 1 were not told
    apart on validation. With `decoder="paper"` take lr 1e-4: 1e-3 explodes in the first epoch.
    """
    rules = {
        f"latent_dim must be at least 1, got {latent_dim}.": latent_dim >= 1,
        f"lr must be above 0, got {lr}.": lr > 0,
        f"kl_weight must be at least 0, got {kl_weight}.": kl_weight >= 0,
        f"loss must be one of {', '.join(LOSSES)}, got {loss!r}.": loss in LOSSES,
        f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}.": decoder in DECODERS,
        f"image_size must be a multiple of 4 in [32, 128], got {image_size}.": (
            32 <= image_size <= 128 and image_size % 4 == 0
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    return BrainCVAE(
        latent_dim=latent_dim,
        lr=lr,
        kl_weight=kl_weight,
        loss=loss,
        decoder=decoder,
        image_size=image_size,
    )


class FFTConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution with stride 1 and no padding, computed as a product of spectra.

    Equal to `nn.ConvTranspose2d` up to rounding, with the same parameters; with the paper's
    33x33 and 65x65 kernels several times faster. Spectra are float32 under autocast too.
    """

    def forward(self, x: Tensor) -> Tensor:
        size = [x.shape[-2] + self.kernel_size[0] - 1, x.shape[-1] + self.kernel_size[1] - 1]
        with torch.autocast(x.device.type, enabled=False):
            inputs = torch.fft.rfft2(x.float(), s=size)
            kernels = torch.fft.rfft2(self.weight, s=size)
            outputs = torch.einsum("bihw,iohw->bohw", inputs, kernels)
            return torch.fft.irfft2(outputs, s=size) + self.bias[:, None, None]


class BrainCVAE(nn.Module):
    """Encoder and decoder around a code of `latent_dim` numbers, with Adam.

    Images come as float (b, 1, h, w) in [0, 1] and are resized (antialiased) to `image_size`,
    where loss and error are measured: what the resizing loses is not counted as error.
    """

    def __init__(self, *, latent_dim, lr, kl_weight, loss, decoder, image_size):
        super().__init__()
        self.kl_weight, self.loss, self.image_size = kl_weight, loss, image_size
        side = image_size // 4
        is_paper = decoder == "paper"
        channels = CHANNELS if is_paper else SQUEEZED
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 32, 3, stride=2, padding=1),  # (b, 32, s/2, s/2)
            nn.ReLU(),
            nn.Conv2d(32, CHANNELS, 3, stride=2, padding=1),  # (b, 64, s/4, s/4)
            nn.ReLU(),
            *([] if is_paper else [nn.Conv2d(CHANNELS, SQUEEZED, 1)]),
            Permute([0, 2, 3, 1]),  # channels last, as the memory lies: flattening copies nothing
            nn.Flatten(),
        )
        self.to_mu = nn.Linear(channels * side * side, latent_dim)
        self.to_logvar = nn.Linear(channels * side * side, latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, channels * side * side),
            nn.Unflatten(1, (side, side, channels)),
            Permute([0, 3, 1, 2]),
            *(_paper_layers(side) if is_paper else _small_layers()),  # logits (b, 1, s, s)
        )
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr, fused=True)

    def train_step(self, x: Tensor) -> dict[str, Tensor]:
        """One step of the optimizer; the losses before it, a batch's mean."""
        x = self._resize(x)
        mu, logvar = self._encode(x)
        z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
        losses = self._losses(x, self.decoder(z), mu, logvar)
        self.optimizer.zero_grad()
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(self.parameters(), MAX_GRADIENT_NORM)
        self.optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    @torch.no_grad()
    def eval_step(self, x: Tensor) -> dict[str, Tensor]:
        """The same losses at the mean of the code, without sampling: they repeat exactly."""
        x = self._resize(x)
        mu, logvar = self._encode(x)
        return self._losses(x, self.decoder(mu), mu, logvar)

    @torch.no_grad()
    def reconstruct(self, x: Tensor) -> Tensor:
        """x_hat of the size of x, in [0, 1], decoded from the mean of the code."""
        return _enlarge(self._decode_mean(self._resize(x)), x)

    @torch.no_grad()
    def error_map(self, x: Tensor) -> Tensor:
        """|x - x_hat| at the network's resolution, enlarged (bilinear) to the size of x."""
        resized = self._resize(x)
        return _enlarge((resized - self._decode_mean(resized)).abs(), x)

    def _resize(self, x: Tensor) -> Tensor:
        if x.shape[-1] == self.image_size:
            return x
        return F.interpolate(x, size=self.image_size, mode="bilinear", antialias=True)

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)  # (b, 64 * s/4 * s/4)
        return self.to_mu(h).float(), self.to_logvar(h).float()

    def _decode_mean(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(self._encode(x)[0]).float())

    def _losses(self, x, logits, mu, logvar) -> dict[str, Tensor]:
        """Sums over pixels and over the code, averaged over the batch."""
        reconstruction = _reconstruction_loss(self.loss, logits.float(), x) / len(x)
        kl = -0.5 * (1 + logvar - mu.square() - logvar.exp()).sum() / len(x)
        loss = reconstruction + self.kl_weight * kl
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


def _small_layers() -> list[nn.Module]:
    """Our decoder: channels are restored, then each step doubles the side with a 4x4 kernel."""
    return [
        nn.Conv2d(SQUEEZED, CHANNELS, 1),  # (b, 64, s/4, s/4)
        nn.ReLU(),
        nn.ConvTranspose2d(CHANNELS, 32, 4, stride=2, padding=1),  # (b, 32, s/2, s/2)
        nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),  # (b, 1, s, s)
    ]


def _paper_layers(side: int) -> list[nn.Module]:
    """The paper's decoder; kernels of 33 and 65 at 128 px."""
    return [
        FFTConvTranspose2d(CHANNELS, 32, side + 1),  # (b, 32, s/2, s/2)
        nn.ReLU(),
        FFTConvTranspose2d(32, 1, 2 * side + 1),  # (b, 1, s, s)
    ]


def _reconstruction_loss(name: str, logits: Tensor, x: Tensor) -> Tensor:
    if name == "bce":
        return F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
    loss = F.mse_loss if name == "mse" else F.l1_loss
    return loss(torch.sigmoid(logits), x, reduction="sum")


def _enlarge(small: Tensor, x: Tensor) -> Tensor:
    if small.shape[-2:] == x.shape[-2:]:
        return small
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
