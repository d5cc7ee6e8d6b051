"""A classifier: trained once on labelled slices of both classes, then kept.

Owns what identifies a training, which images it sees how often, and the folder that keeps it.
Knows nothing of the network inside, of thresholds or of studies.
"""

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from models import backbones, brain_cnn, error_mapper
from models.brain_cnn import BrainCNN
from models.error_mapper import FLIPS
from training import error_maps, loop
from training.cache import code_digest, make_key
from training.data import Dataset, Splits
from training.error_maps import by_batches
from training.features import FeatureStore
from training.kept_fit import keep_fit
from training.loop import TrainingError
from training.resumption import Resumption, beside

# What a classifier has besides the network's own hyperparameters and its schedule.
DEFAULTS = {"group_power": 0.5, "flips": "all"}
WATCHED = "val_misranked"  # the share of pairs of a tumour and a healthy image that is
AFTER_FIT = ("flips",)  # may change without another training
# The paper's: every image counts once, and is seen once.
PAPER = brain_cnn.PAPER | brain_cnn.PAPER_SCHEDULE | {"group_power": 1.0, "flips": "none"}
PRETRAINED = brain_cnn.PRETRAINED | brain_cnn.PRETRAINED_SCHEDULE


@dataclass(frozen=True)
class ClassifierSpec:
    """A BrainCNN with these hyperparameters; those left out have their defaults.

    The arguments of `models.brain_cnn.build`, its SCHEDULE (`n_epochs`, `batch_size`, `patience`),
    and: a group of n near-copies is seen as often as n ** `group_power` single images (1: every
    image alike, 0: every group alike); `flips` are those that a score is averaged over. `PAPER`
    holds the paper's values.
    """

    hyperparameters: dict[str, object] = field(default_factory=dict)
    seed: int = 0

    def complete(self) -> "ClassifierSpec":
        """The same with every hyperparameter written out."""
        arguments = inspect.signature(brain_cnn.build).parameters
        own = {name: argument.default for name, argument in arguments.items()}
        defaults = own | brain_cnn.SCHEDULE | DEFAULTS
        unknown = sorted(set(self.hyperparameters) - set(defaults))
        if unknown:
            raise TrainingError(
                f"brain_cnn has no hyperparameter {', '.join(unknown)}. "
                f"Known: {', '.join(defaults)}."
            )
        spec = ClassifierSpec(defaults | self.hyperparameters, self.seed)
        _check(spec.hyperparameters)
        return spec

    def fitted(self) -> dict[str, object]:
        """The hyperparameters that a training depends on; the others may change after it."""
        hyperparameters = self.complete().hyperparameters
        return {n: v for n, v in hyperparameters.items() if n not in AFTER_FIT}

    def build(self) -> BrainCNN:
        """The network before its training; its weights depend on the seed alone."""
        hyperparameters = self.complete().hyperparameters
        own = inspect.signature(brain_cnn.build).parameters
        with loop.seeded(self.seed, torch.device("cpu")):
            return brain_cnn.build(**{name: hyperparameters[name] for name in own})


@dataclass(frozen=True)
class FittedClassifier:
    """A trained classifier and where it is kept."""

    key: str  # of the training: equal keys, equal weights
    folder: Path
    spec: ClassifierSpec  # complete
    network: BrainCNN = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    best_epoch: int
    seconds: float  # of the training, whenever it was
    trained: bool  # now; False when it was found in the cache
    store: FeatureStore = field(repr=False)

    @property
    def answers_key(self) -> str:
        """Of the training and what may change after it: equal keys, equal scores and maps."""
        return f"{self.key} {self.spec.hyperparameters['flips']}"

    def scores(self, indices: np.ndarray) -> np.ndarray:
        """Log-odds of a tumour, float64 (k,), averaged over the flips."""
        images, device = self.store.dataset.images[indices], self.store.device
        flips = self.spec.hyperparameters["flips"]
        return score_images(self.network, images, device=device, flips=flips)

    def attribution_maps(self, indices: np.ndarray) -> np.ndarray:
        """Where a tumour is seen, float32 (k, h, w), each map min-max scaled to [0, 1]."""
        images, device = self.store.dataset.images[indices], self.store.device
        flips = self.spec.hyperparameters["flips"]
        return attribution_maps(self.network, images, device=device, flips=flips)


def fit_classifier(
    spec: ClassifierSpec,
    splits: Splits,
    store: FeatureStore,
    *,
    precision: str,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_train: Callable[[], None] | None = None,
) -> FittedClassifier:
    """Train on the images of `splits.train`, or find what an equal training left.

    The best epoch is that of the highest AUROC on `splits.val`: a loss would count how sure the
    network is too, which says little where it was trained on generated images. `on_train` is
    called before a training starts, `on_epoch` as epochs end; what they raise goes through and
    nothing is kept. Test images are not touched.
    """
    spec = spec.complete()
    key = _key(spec, splits, store, precision)

    def fit(folder: Path) -> tuple[BrainCNN, loop.Training]:
        network = spec.build()
        training = _train(network, spec, splits, store, precision, on_epoch, beside(folder))
        return network, training

    kept = keep_fit(
        store.cache,
        key,
        build=spec.build,
        fit=fit,
        about={"spec": asdict(spec)},
        device=store.device,
        on_train=on_train,
    )
    return FittedClassifier(key=key, spec=spec, store=store, **kept._asdict())


def score_images(
    network: BrainCNN, images: np.ndarray, *, device: torch.device, flips: str = "none"
) -> np.ndarray:
    """Log-odds of a tumour, float64 (n,), of uint8 images (n, h, w)."""

    @torch.no_grad()
    def log_odds(x: Tensor) -> Tensor:
        logits = [network(x.flip(flip)) for flip in FLIPS[flips]]
        mean = sum(logits) / len(logits)
        return mean[:, 1] - mean[:, 0]

    return _of_batches(log_odds, network, images, device).astype(np.float64)


def attribution_maps(
    network: BrainCNN, images: np.ndarray, *, device: torch.device, flips: str = "none"
) -> np.ndarray:
    """Where a tumour is seen in uint8 images (n, h, w), float32, each min-max scaled to [0, 1].

    A constant map becomes zeros.
    """

    def scaled(x: Tensor) -> Tensor:
        maps = sum(network.attribution_map(x.flip(flip)).flip(flip) for flip in FLIPS[flips])
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        width = high - low
        return ((maps - low) / torch.where(width > 0, width, 1)).squeeze(1)

    return _of_batches(scaled, network, images, device)


def features(network: BrainCNN, images: np.ndarray, *, device: torch.device) -> np.ndarray:
    """What the network's last layer sees, float32 (n, d), of uint8 images (n, h, w)."""
    return _of_batches(network.features, network, images, device)


def _of_batches(
    answer: Callable[[Tensor], Tensor], network: BrainCNN, images: np.ndarray, device: torch.device
) -> np.ndarray:
    network.eval()
    return by_batches(lambda x: answer(x).cpu(), images, device).numpy()


def _train(
    network, spec, splits, store, precision, on_epoch, resumption: Resumption
) -> loop.Training:
    dataset, device, val = store.dataset, store.device, splits.val
    seen = as_often(splits.train, dataset, power=spec.hyperparameters["group_power"])

    def val_auroc(network: BrainCNN) -> dict[str, float]:
        with loop.autocast(device, precision):
            scores = score_images(network, dataset.images[val], device=device)
        auroc = float(roc_auc_score(dataset.labels[val], scores))
        return {"val_auroc": auroc, WATCHED: 1 - auroc}

    return loop.fit(
        network,
        dataset.images[seen],
        dataset.images[val],
        **{name: spec.hyperparameters[name] for name in brain_cnn.SCHEDULE},
        seed=spec.seed,
        device=device,
        precision=precision,
        train_labels=dataset.labels[seen],
        val_labels=dataset.labels[val],
        watched=WATCHED,
        monitor=val_auroc,
        on_epoch=on_epoch,
        resumption=resumption,
    )


def as_often(indices: np.ndarray, dataset: Dataset, *, power: float) -> np.ndarray:
    """These images, as many as there are, each as often as its group of near-copies counts.

    A group of n counts as n ** `power`; within a class its share of the draws is its share of
    that sum. Both classes keep their number of images.
    """
    if power == 1:
        return indices
    return np.concatenate(
        [_drawn(indices[dataset.labels[indices] == y], dataset, power) for y in (0, 1)]
    )


def _drawn(members: np.ndarray, dataset: Dataset, power: float) -> np.ndarray:
    """Draws at even distances along the images' weights laid end to end, near-copies together."""
    members = members[np.argsort(dataset.groups[members], kind="stable")]
    _, group, sizes = np.unique(dataset.groups[members], return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes[group] ** (power - 1.0))
    places = (np.arange(len(members)) + 0.5) / len(members) * ends[-1]
    return members[np.searchsorted(ends, places)]


def _check(hyperparameters: dict[str, object]) -> None:
    power, flips = hyperparameters["group_power"], hyperparameters["flips"]
    if not 0 <= power <= 1:
        raise TrainingError(f"group_power must be in [0, 1], got {power}.")
    if flips not in FLIPS:
        raise TrainingError(f"flips must be one of {', '.join(FLIPS)}, got {flips!r}.")


def _key(spec: ClassifierSpec, splits: Splits, store: FeatureStore, precision: str) -> str:
    code = (backbones, brain_cnn, loop, error_maps, error_mapper, inspect.getmodule(_key))
    return make_key(
        name="brain_cnn",
        hyperparameters=spec.fitted(),
        seed=spec.seed,
        data=store.dataset.digest,
        indices=[splits.train.tolist(), splits.val.tolist()],
        device=store.device.type,
        precision=precision,
        code=code_digest(*code),
    )
