"""How near generated images are to real ones, in the features of a fixed network.

Owns the distances between two sets of images, how varied a set is, and what real images reach: the
best that a generator can hope for. Knows no generator. torchmetrics is imported where it is used:
importing it takes 5 seconds, more than all else that a command does before it starts.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from models.backbones import LITE, build_backbone, is_installed
from models.brain_cnn import BrainCNN
from training.classifier import features as classifier_features
from training.error_maps import by_batches
from training.loop import as_input, seeded

CPU = torch.device("cpu")  # where features are compared: it takes milliseconds
MIN_IMAGES = 8  # our choice: with fewer there is no spread to compare
KID_SUBSETS = 50  # our choice; each is of half of the smaller set
NEIGHBORS = 3  # the k of precision and recall (Kynkäänniemi et al. 2019, section 3)
N_PAIRS = 200  # pairs of images that variety is the mean of; its standard error is then 0.01
# Of multi-scale SSIM's five scales (Wang et al. 2003, section 3) 128 px have room for four.
SCALE_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363])


@dataclass(frozen=True)
class Judge:
    """A feature space with a name, in which sets of images are compared.

    `name` ends the names of the metrics ("brain_cnn", "efficientnet_lite0"). `identity` is equal
    where the answers are: it belongs into the key of what is chosen by them.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]  # uint8 (n, h, w) -> float32 (n, d)
    identity: str


def lite_judge(device: torch.device) -> Judge | None:
    """EfficientNet-lite0's features, averaged over the image; None where it is not installed."""
    if not is_installed(LITE):
        return None
    network = build_backbone(LITE).to(device)

    def features(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return by_batches(lambda x: network(x).mean(dim=(2, 3)).cpu(), images, device).numpy()

    return Judge(LITE, features, LITE)


def classifier_judge(network: BrainCNN, device: torch.device) -> Judge:
    """What a classifier of the real training split sees: no weights from elsewhere are needed."""
    digest = hashlib.sha256()
    for name, weight in network.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.cpu().numpy())

    def features(images: np.ndarray) -> np.ndarray:
        return classifier_features(network, images, device=device)

    return Judge("brain_cnn", features, f"brain_cnn-{digest.hexdigest()[:16]}")


@dataclass(frozen=True)
class Comparison:
    """Real images as a judge sees them, with which any number of sets can be compared."""

    judge: Judge
    real: np.ndarray = field(repr=False)  # (m, d), mean 0 and spread 1 in each feature
    groups: np.ndarray = field(repr=False)  # (m,), near-copies share a number
    mean: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    seed: int = 0

    @classmethod
    def of(
        cls, real: np.ndarray, judge: Judge, *, seed: int, groups: np.ndarray | None = None
    ) -> "Comparison":
        """With these images uint8 (m, h, w); without `groups` none is a copy of another.

        Each feature is scaled by its mean and spread over the real images, so that all count alike
        and distances have no unit: a choice of ours that ranks nothing by a few loud channels.
        """
        _check(real, "real images")
        seen = judge.features(real).astype(np.float64)
        spread = seen.std(axis=0)
        mean, spread = seen.mean(axis=0), np.where(spread > 1e-6, spread, 1.0)
        groups = np.arange(len(real)) if groups is None else np.asarray(groups)
        return cls(judge, (seen - mean) / spread, groups, mean, spread, seed)

    @property
    def name(self) -> str:
        """Equal for equal answers on the same real images."""
        return f"kid_{self.judge.identity}-{self.seed}"

    def __call__(self, samples: np.ndarray) -> dict[str, float]:
        """What a training is watched by: the kernel distance to validation images alone."""
        return {"val_kid": self._kid(self._seen(samples))}

    def fidelity(self, samples: np.ndarray) -> dict[str, float]:
        """Kernel and Fréchet distance, precision and recall; the keys end in the judge's name."""
        seen = self._seen(samples)
        precision, recall = precision_and_recall(seen, self.real, self.groups)
        named = {
            "kid": self._kid(seen),
            "fid": _frechet_distance(seen, self.real),
            "precision": precision,
            "recall": recall,
        }
        return {f"{name}_{self.judge.name}": value for name, value in named.items()}

    def feature_spread(self, samples: np.ndarray) -> float:
        """How far apart samples lie, the real images being at 1; 0 is one image repeated."""
        return float(np.sqrt(self._seen(samples).var(axis=0).mean() / self.real.var(axis=0).mean()))

    def _seen(self, samples: np.ndarray) -> np.ndarray:
        _check(samples, "samples")
        return (self.judge.features(samples) - self.mean) / self.spread

    def _kid(self, seen: np.ndarray) -> float:
        return _kernel_distance(seen, self.real, seed=self.seed)


def fidelity(
    samples: np.ndarray,
    real: np.ndarray,
    judge: Judge,
    *,
    seed: int,
    real_groups: np.ndarray | None = None,
) -> dict[str, float]:
    """How near samples uint8 (n, h, w) are to real images: `kid_`, `fid_`, `precision_`, `recall_`.

    The Fréchet distance depends on how many images there are: compare it between sets of one size.
    """
    return Comparison.of(real, judge, seed=seed, groups=real_groups).fidelity(samples)


def variety(
    samples: np.ndarray, *, seed: int, groups: np.ndarray | None = None
) -> dict[str, float]:
    """`ms_ssim`: the mean multi-scale similarity of two samples; 1 is one image repeated.

    Pairs are drawn at random, from different groups where near-copies are known. Images are of 88
    px or more.
    """
    _check(samples, "samples")
    groups = np.arange(len(samples)) if groups is None else np.asarray(groups)
    rng = np.random.default_rng(seed)
    first, second = rng.integers(len(samples), size=(2, 8 * N_PAIRS))
    apart = np.flatnonzero(groups[first] != groups[second])[:N_PAIRS]
    if not len(apart):
        raise ValueError("variety needs images of two groups or more, got one.")
    return {"ms_ssim": _similarity(samples[first[apart]], samples[second[apart]])}


def references(
    train: np.ndarray,
    val: np.ndarray,
    judge: Judge,
    *,
    seed: int,
    train_groups: np.ndarray | None = None,
    val_groups: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """What the measures are for `real` training images against validation images, and `collapse`.

    No generator can be better than real images of other patients, but by copying. Collapse is one
    training image repeated. Both have as many images as validation has.
    """
    comparison = Comparison.of(val, judge, seed=seed, groups=val_groups)
    n = min(len(train), len(val))
    chosen = np.random.default_rng(seed).choice(len(train), n, replace=False)
    groups = None if train_groups is None else np.asarray(train_groups)[chosen]
    repeated = np.repeat(train[chosen[:1]], n, axis=0)
    sets = {"real": (train[chosen], groups), "collapse": (repeated, None)}
    return {
        name: comparison.fidelity(images)
        | variety(images, seed=seed, groups=known)
        | {"feature_spread": comparison.feature_spread(images)}
        for name, (images, known) in sets.items()
    }


def precision_and_recall(
    samples: np.ndarray, real: np.ndarray, real_groups: np.ndarray
) -> tuple[float, float]:
    """Share of samples within the reach of real images, and of real images within the samples'.

    Kynkäänniemi et al. 2019, features (n, d) and (m, d). A real image reaches as far as its third
    nearest neighbour of another group: with its copies counted it would hardly reach beyond itself.
    """
    lengths = (samples**2).sum(axis=1)[:, None] + (real**2).sum(axis=1)
    between = np.sqrt(np.maximum(lengths - 2 * samples @ real.T, 0))  # (n, m)
    precise = (between <= _reach(real, real_groups)).any(axis=1)
    recalled = (between <= _reach(samples, np.arange(len(samples)))[:, None]).any(axis=0)
    return float(precise.mean()), float(recalled.mean())


def _reach(points: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Distance to the third nearest point of another group, (n,)."""
    largest = np.unique(groups, return_counts=True)[1].max()
    n = min(len(points), int(largest) + NEIGHBORS)
    distances, found = NearestNeighbors(n_neighbors=n).fit(points).kneighbors(points)
    distances = np.where(groups[found] == groups[:, None], np.inf, distances)
    others = np.sort(distances, axis=1)[:, :NEIGHBORS]
    return np.max(others, axis=1, where=np.isfinite(others), initial=0.0)


def _kernel_distance(samples: np.ndarray, real: np.ndarray, *, seed: int) -> float:
    """KID (Bińkowski et al. 2018), an unbiased squared distance: about 0 where nothing differs."""
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings(), seeded(seed, CPU):
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save all")
        metric = KernelInceptionDistance(
            feature=_AsItIs(real.shape[1]),
            subsets=KID_SUBSETS,
            subset_size=min(len(samples), len(real)) // 2,
        )
        return float(_compared(metric, samples, real)[0])


def _frechet_distance(samples: np.ndarray, real: np.ndarray) -> float:
    """FID (Heusel et al. 2017), which is biased upwards where images are few."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_AsItIs(real.shape[1]))
    return float(_compared(metric, samples, real))


def _compared(metric, samples: np.ndarray, real: np.ndarray):
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(samples), real=False)
    return metric.compute()


def _similarity(first: np.ndarray, second: np.ndarray) -> float:
    from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

    metric = MultiScaleStructuralSimilarityIndexMeasure(
        data_range=1.0, betas=tuple(SCALE_WEIGHTS / SCALE_WEIGHTS.sum())
    )
    return float(metric(*(as_input(torch.from_numpy(images)) for images in (first, second))))


class _AsItIs(nn.Module):
    """In place of torchmetrics' Inception network: features are there already."""

    def __init__(self, num_features: int):
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def _check(images: np.ndarray, what: str) -> None:
    if images.ndim != 3 or images.dtype != np.uint8:
        raise ValueError(f"{what} must be uint8 (n, h, w), got {images.dtype} {images.shape}.")
    if len(images) < MIN_IMAGES:
        raise ValueError(f"At least {MIN_IMAGES} {what} are compared, got {len(images)}.")
