"""Ensemble: the errors of several detectors added up, each in units of a healthy image's.

Owns which detectors take part and how their errors are joined. Knows nothing of how they are
fitted: each is a detector of its own, fitted as such.
"""

from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models import autoencoder, denoising_autoencoder, patch_features, synthetic_lesions
from models.error_mapper import ErrorMapper

MEMBERS = {
    "patch_features": patch_features,
    "synthetic_lesions": synthetic_lesions,
    "denoising_autoencoder": denoising_autoencoder,
    "autoencoder": autoencoder,
}
SIDE = 64  # px at which members' errors are kept; our choice

SCHEDULE: dict[str, object] = {}  # nothing of its own is trained
MAPPING = {"scaling": "healthy"}
AFTER_FIT = tuple(f"weight_{name}" for name in MEMBERS)


def build(
    *,
    weight_patch_features: float = 1.0,
    weight_synthetic_lesions: float = 0.3,
    weight_denoising_autoencoder: float = 0.1,
    weight_autoencoder: float = 0.0,
    member_epochs: int = 0,
) -> "Ensemble":
    """A weighted sum of its members' errors; the weights are our choice and meant to be searched.

    Members have their own defaults, but for `member_epochs`: where it is not 0, those that are
    trained have so many. Changing a weight fits nothing anew.
    """
    weights = {
        "patch_features": weight_patch_features,
        "synthetic_lesions": weight_synthetic_lesions,
        "denoising_autoencoder": weight_denoising_autoencoder,
        "autoencoder": weight_autoencoder,
    }
    for name, weight in weights.items():
        if weight < 0:
            raise ValueError(f"weight_{name} must be at least 0, got {weight}.")
    if member_epochs < 0:
        raise ValueError(f"member_epochs must be at least 0, got {member_epochs}.")
    if not any(weights.values()):
        raise ValueError("An ensemble needs a weight above 0, got 0 for every member.")
    return Ensemble(weights)


class Ensemble(nn.Module):
    """Fitted detectors, and how much each counts."""

    def __init__(self, weights: dict[str, float]):
        super().__init__()
        self.members = nn.ModuleDict({name: _member(module) for name, module in MEMBERS.items()})
        total = sum(weights.values())
        shares = torch.tensor([weights[name] / total for name in MEMBERS])
        self.register_buffer("shares", shares, persistent=False)

    @torch.no_grad()
    def extract(self, x: Tensor) -> Tensor:
        """Each member's errors as multiples of a healthy image's largest: (b, members, 64, 64)."""
        errors = [member.errors(x) / member.reference for member in self.members.values()]
        return F.adaptive_avg_pool2d(torch.cat(errors, dim=1), SIDE)

    @torch.no_grad()
    def compare(self, features: Tensor, size: torch.Size) -> Tensor:
        """The weighted sum of what `extract` gave, enlarged to errors (b, 1, h, w)."""
        joined = torch.einsum("bmhw,m->bhw", features.float(), self.shares)[:, None]
        return F.interpolate(joined, size=size, mode="bilinear", align_corners=False)

    @torch.no_grad()
    def error_map(self, x: Tensor) -> Tensor:
        """Errors (b, 1, h, w) of images (b, 1, h, w) in [0, 1]."""
        return self.compare(self.extract(x), x.shape[-2:])


def _member(module: ModuleType) -> ErrorMapper:
    """A detector with its defaults, as it is fitted alone."""
    defaults = module.where_installed() if hasattr(module, "where_installed") else {}
    return ErrorMapper(module.build(**defaults), **getattr(module, "MAPPING", {}))
