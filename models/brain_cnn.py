"""BrainCNN: a classifier that learns from labelled slices of both classes, as the paper's does.

Three variants: the paper's network, a small one, and one whose first blocks have seen photographs.
The last two end in global average pooling, see other distortions of their images in every epoch,
and beside each slice its mirror image. Owns the networks, their loss, optimizer, learning rates and
augmentation. Knows nothing of files, near-copies, precision or of what an answer is used for.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.transforms.v2.functional import gaussian_blur

from models.backbones import AsPhotograph, lite_blocks
from models.folded import fold_block, fold_stem

VARIANTS = ("small", "pretrained", "paper")
LR_SCHEDULES = ("cosine", "plateau")
PAPER_SIZE = 128  # px; the linear layers of the paper's network take nothing else

# Of attribution maps: the size at which a slice's content is lost, in pixels; the steps from there
# to the slice; and the smoothing, in image sides. Our choice, on validation images.
SHAPELESS = 4
N_STEPS = 4
SMOOTHED = 1 / 32

# How long to train: our choice, on validation images.
SCHEDULE = {"n_epochs": 20, "batch_size": 64, "patience": 20}

# The paper's network, optimizer and schedule, to be given in place of the defaults.
PAPER = {
    "variant": "paper",
    "lr": 1e-3,
    "dropout": 0.5,
    "weight_decay": 0.0,
    "augmentation": 0.0,
    "label_smoothing": 0.0,
    "weight_average": 0.0,
    "lr_schedule": "plateau",
    "image_size": PAPER_SIZE,
}
PAPER_SCHEDULE = {"n_epochs": 20, "batch_size": 64, "patience": 20}

# The pretrained network's own, in place of the defaults. Cross-validated over groups of training
# images, it was right in 94.7 % (95.1 % at 96 px, in twice the time), the small one in 92.2 %.
PRETRAINED = {"variant": "pretrained", "lr": 5e-4}
PRETRAINED_SCHEDULE = {"n_epochs": 8}


def build(
    *,
    variant: str = "small",
    lr: float = 2e-3,
    dropout: float = 0.2,
    weight_decay: float = 0.05,
    augmentation: float = 1.0,
    label_smoothing: float = 0.1,
    weight_average: float = 0.98,
    lr_schedule: str = "cosine",
    width: int = 16,
    image_size: int = 64,
) -> "BrainCNN":
    """A BrainCNN with its optimizer; the defaults are the small network's, and our choice.

    `PAPER` holds the paper's values, `PRETRAINED` those of the network that begins with the weights
    of EfficientNet-lite0; without these weights it raises BackboneError.

    `augmentation` is how far images are distorted in training: 0 not at all, 1 as we chose it.
    `weight_average` is the decay of the running average of the weights that then answers; 0 has
    none. `lr_schedule` lets `lr` fall to 0 over the epochs ("cosine"), or to a tenth when the
    validation loss has not fallen for 5 epochs ("plateau", the paper's). `width` is the small
    variant's number of channels at its first depth.
    """
    rules = {
        f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}.": variant in VARIANTS,
        f"lr must be above 0, got {lr}.": lr > 0,
        f"dropout must be in [0, 1), got {dropout}.": 0 <= dropout < 1,
        f"weight_decay must be at least 0, got {weight_decay}.": weight_decay >= 0,
        f"augmentation must be in [0, 2], got {augmentation}.": 0 <= augmentation <= 2,
        f"label_smoothing must be in [0, 1), got {label_smoothing}.": 0 <= label_smoothing < 1,
        f"weight_average must be in [0, 1), got {weight_average}.": 0 <= weight_average < 1,
        f"lr_schedule must be one of {', '.join(LR_SCHEDULES)}, got {lr_schedule!r}.": (
            lr_schedule in LR_SCHEDULES
        ),
        f"width must be at least 1, got {width}.": width >= 1,
        f"image_size must be a multiple of 16 in [32, 128], got {image_size}.": (
            32 <= image_size <= 128 and image_size % 16 == 0
        ),
        f"image_size must be {PAPER_SIZE} for the paper's network, got {image_size}.": (
            variant != "paper" or image_size == PAPER_SIZE
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    networks = {
        "small": lambda: SmallNetwork(width, dropout),
        "pretrained": lambda: PretrainedNetwork(dropout),
        "paper": lambda: PaperNetwork(dropout),
    }
    return BrainCNN(
        network=networks[variant](),
        lr=lr,
        weight_decay=weight_decay,
        augmentation=augmentation,
        label_smoothing=label_smoothing,
        weight_average=weight_average,
        lr_schedule=lr_schedule,
        image_size=image_size,
    )


class BrainCNN(nn.Module):
    """A network with two logits (no tumour, tumour), and AdamW.

    Images come as float (b, 1, h, w) in [0, 1] and are resized (antialiased) to `image_size`.
    With a `weight_average` the average of the weights answers, not those that are trained.
    """

    def __init__(
        self,
        *,
        network,
        lr,
        weight_decay,
        augmentation,
        label_smoothing,
        weight_average,
        lr_schedule,
        image_size,
    ):
        super().__init__()
        self.lr, self.lr_schedule, self.image_size = lr, lr_schedule, image_size
        self.augmentation, self.label_smoothing = augmentation, label_smoothing
        self.network, self.average = network, None
        if weight_average:
            self.average = AveragedModel(
                network, multi_avg_fn=_running_average(weight_average), use_buffers=True
            )
        trained = [one for one in network.parameters() if one.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=weight_decay, fused=True)
        self.plateau = ReduceLROnPlateau(self.optimizer, factor=0.1, patience=5)

    @property
    def answering(self) -> nn.Module:
        """The network whose answers count."""
        return self.network if self.average is None else self.average.module

    def begin_epoch(self, epoch: int, n_epochs: int) -> None:
        """Set this epoch's learning rate where it follows the cosine."""
        if self.lr_schedule == "cosine":
            passed = (epoch - 1) / n_epochs
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * (1 + math.cos(math.pi * passed)) / 2

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """Lower the learning rate where it follows the validation loss."""
        if self.lr_schedule == "plateau":
            self.plateau.step(metrics["val_loss"])

    def train_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """One step of the optimizer on distorted images; loss and accuracy before it."""
        with torch.autocast(x.device.type, enabled=False):
            x = distort(self._looks(x), self.augmentation)
        logits = self.network(x).float()
        loss = F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return {"loss": loss.detach(), "accuracy": _accuracy(logits, y)}

    @torch.no_grad()
    def eval_step(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Cross-entropy (labels not smoothed) and accuracy of the answers."""
        logits = self(x)
        return {"loss": F.cross_entropy(logits, y), "accuracy": _accuracy(logits, y)}

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, 2) of no tumour and tumour."""
        return self.answering(self._looks(x)).float()

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What distances between images are measured in, (b, d)."""
        return self.answering.features(self._looks(x)).float()

    def attribution_map(self, x: Tensor) -> Tensor:
        """Where the network sees a tumour, >= 0, of x's size: integrated gradients, smoothed.

        What each pixel adds to the log-odds of a tumour, where positive, as the slice emerges from
        a blurred copy of itself (Sundararajan et al. 2017, "Axiomatic attribution for deep
        networks"; the baseline: Sturmfels et al. 2020, "Visualizing the impact of feature
        attribution baselines"). Maps of activations will not do beside a mirror image, where both
        sides show that they differ: their maximum lay in the tumour of 11 % of the validation
        images of a split, this one's in 81 %.
        """
        added = F.relu(self._added(_as_large(x, self.image_size)))
        sigma = SMOOTHED * self.image_size
        smooth = gaussian_blur(added, 2 * math.ceil(3 * sigma) + 1, sigma)
        return _as_large(smooth, x.shape[-1])

    def _added(self, image: Tensor) -> Tensor:
        """What each pixel adds to the log-odds of a tumour; in sum, image's minus its blur's."""
        blurred = _as_large(_as_large(image, SHAPELESS), self.image_size)
        gradients = torch.zeros_like(image)
        for step in range(N_STEPS):
            between = torch.lerp(blurred, image, (step + 0.5) / N_STEPS).requires_grad_()
            with torch.enable_grad():
                logits = self.answering(self._looks(between)).float()
                log_odds = logits[:, 1] - logits[:, 0]
                gradients += torch.autograd.grad(log_odds.sum(), between)[0]
        return gradients / N_STEPS * (image - blurred)

    def _looks(self, x: Tensor) -> Tensor:
        """What the network takes, (b, 1 or 2, s, s): the slice, and its mirror image if it can."""
        x = _as_large(x, self.image_size)
        return torch.cat([x, x.flip(-1)], 1) if self.network.mirrored else x


class _Network(nn.Module):
    """Images (b, c, s, s) -> maps that say where -> a vector -> logits (b, 2).

    A `mirrored` network takes each slice (the first channel) with its mirror image (the second).
    """

    mirrored: bool
    convolutions: nn.Module
    embed: nn.Module
    classify: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.embed(self.convolutions(x)))

    def features(self, x: Tensor) -> Tensor:
        """What the last layer sees."""
        return self.embed(self.convolutions(x))


class SmallNetwork(_Network):
    """Four depths of residual blocks, and a linear layer on the mean over each map.

    A healthy brain is much alike left and right, a tumour is not: at each place the network sees
    the opposite one too. On slices of other groups its cross-entropy was lower by a quarter.

    """

    mirrored = True

    def __init__(self, width: int, dropout: float):
        super().__init__()
        w = width
        self.convolutions = nn.Sequential(
            _convolution(2, w, kernel_size=4, stride=2),  # (b, w, s/2, s/2)
            _Residual(w, w),
            _Residual(w, 2 * w, stride=2),
            _Residual(2 * w, 4 * w, stride=2),  # (b, 4w, s/8, s/8)
        )
        self.embed = nn.Sequential(
            _Residual(4 * w, 8 * w, stride=2),  # (b, 8w, s/16, s/16)
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(8 * w, 2))


class PretrainedNetwork(_Network):
    """EfficientNet-lite0's first eleven blocks, and a linear layer on what both sides show.

    The first five blocks stay as they are. The mirror image of the blocks' maps stands for the maps
    of the mirror image, which would take as long again.
    """

    mirrored = False

    def __init__(self, dropout: float):
        super().__init__()
        shallow, deep = lite_blocks()
        self.convolutions = _Blocks(AsPhotograph(), shallow.requires_grad_(False), deep)
        self.embed = nn.Sequential(
            _BesideItsMirror(),  # (b, 224, s/16, s/16)
            nn.Conv2d(224, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(128, 2))

    def features(self, x: Tensor) -> Tensor:
        """The mean of each of the blocks' maps; what follows knows tumours and little else."""
        return self.convolutions(x).mean((2, 3))


class _Blocks(nn.Sequential):
    """As a photograph, through the blocks that stay, then through those that learn.

    Batch norms keep the statistics of photographs, so they are folded into the convolutions before
    them at each step, which takes a third off its time; the parameters are the layers' own.
    """

    def train(self, mode: bool = True) -> "_Blocks":
        return super().train(False)

    def forward(self, x: Tensor) -> Tensor:
        as_photograph, (stem, *shallow), deep = self
        x = fold_stem(stem)(as_photograph(x))
        for block in (*shallow, *deep):
            x = fold_block(block)(x)
        return x


class _BesideItsMirror(nn.Module):
    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps, maps.flip(-1)], 1)


class PaperNetwork(_Network):
    """The paper's BrainCNN; its features are the last hidden layer's 128."""

    mirrored = False

    def __init__(self, dropout: float):
        super().__init__()
        blocks = [
            [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU()]
            for n_in, n_out in pairwise((1, 32, 64, 128))
        ]
        self.convolutions = nn.Sequential(
            *(layer for block in blocks for layer in (*block, nn.MaxPool2d(2)))
        )  # (b, 128, 16, 16)
        hidden = [
            [nn.Linear(n_in, n_out), nn.ReLU(), nn.Dropout(dropout)]
            for n_in, n_out in pairwise((128 * 16 * 16, 1024, 512, 128))
        ]
        self.embed = nn.Sequential(nn.Flatten(), *(layer for block in hidden for layer in block))
        self.classify = nn.Sequential(nn.Linear(128, 2))


class _Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, n_in: int, n_out: int, *, stride: int = 1):
        super().__init__()
        self.convolutions = nn.Sequential(
            _convolution(n_in, n_out, stride=stride),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(n_in, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.convolutions(x) + self.shortcut(x))


def distort(x: Tensor, strength: float) -> Tensor:
    """Other slices of the same kind: flipped, turned, scaled, shifted, of another contrast.

    Left-right and up-down flips are those that the data's own copies show; there are no others
    among them. `strength` scales all but the flips; 0 changes nothing at all. The channels of an
    image change alike.
    """
    if not strength:
        return x
    b = len(x)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(b, 1, 1, 1, device=x.device)

    flip_x, flip_y = (torch.randint(2, (b,), device=x.device) * 2 - 1 for _ in range(2))
    angle = (strength * uniform(-0.26, 0.26)).flatten()  # 15 degrees
    zoom, aspect = ((strength * uniform(-0.12, 0.12)).flatten().exp() for _ in range(2))
    shift = strength * 0.06 * (2 * torch.rand(2, b, device=x.device) - 1)
    rows = [
        [zoom * aspect * flip_x * angle.cos(), -zoom * flip_y * angle.sin(), shift[0]],
        [zoom * flip_x * angle.sin(), zoom * flip_y * angle.cos(), shift[1]],
    ]
    affine = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (b, 2, 3)
    x = F.grid_sample(x, _grid(affine, *x.shape[-2:]), align_corners=False).clamp(0, 1)
    x = x + strength * uniform(-0.8, 1.2) * (x - _mean_of_nine(x))
    x = x.clamp(1e-4, 1) ** (strength * uniform(-0.5, 0.5)).exp()
    return (x * (strength * uniform(-0.2, 0.2)).exp()).clamp(0, 1)


def _grid(affine: Tensor, h: int, w: int) -> Tensor:
    """`F.affine_grid` of (b, 2, 3) -> (b, h, w, 2), in a fifth of its time on a CPU."""
    y, x = (torch.arange(1 - n, n, 2, device=affine.device) / n for n in (h, w))
    of_x, of_y, start = (affine[:, None, None, :, k] for k in range(3))  # (b, 1, 1, 2)
    return of_x * x[:, None] + (of_y * y[:, None, None] + start)


def _mean_of_nine(x: Tensor) -> Tensor:
    """`F.avg_pool2d` over 3 x 3, zeros beyond the border, in a third of its time on a CPU."""
    x = F.pad(x, [1] * 4)
    x = x[..., :-2, :] + x[..., 1:-1, :] + x[..., 2:, :]
    return (x[..., :-2] + x[..., 1:-1] + x[..., 2:]) / 9


def _convolution(n_in: int, n_out: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel_size, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


def _as_large(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", antialias=True)


def _running_average(decay: float) -> Callable[..., None]:
    """What AveragedModel updates by; early on the average is short, so that it forgets the start.

    The n-th update has the decay (1 + n) / (10 + n) until that reaches `decay`, as in TensorFlow's
    ExponentialMovingAverage.
    """

    def update(averaged: list[Tensor], current: list[Tensor], n: Tensor) -> None:
        get_ema_multi_avg_fn(min(decay, float((1 + n) / (10 + n))))(averaged, current, n)

    return update


def _accuracy(logits: Tensor, y: Tensor) -> Tensor:
    return (logits.argmax(1) == y).float().mean()
