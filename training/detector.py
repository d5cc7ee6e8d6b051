"""A detector: trained on healthy images once, then kept with its error maps.

Owns what identifies a training, what it is trained and validated on, and the folder that keeps
it. Knows nothing of the network inside (any module of `models` whose `build` returns something
with an `error_map` is a detector), of heads or of studies.
"""

import inspect
import json
import pkgutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cache as remember
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import get_type_hints

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

import models
from training import checkpoint, error_maps, loop
from training.cache import Cache, code_digest, make_key
from training.data import Dataset, Splits
from training.error_maps import ErrorMaps
from training.loop import Training, TrainingError

WEIGHTS, TRAINING, MAPS = "weights.safetensors", "training.json", "error_maps.safetensors"


@dataclass(frozen=True)
class DetectorSpec:
    """Which detector, with which hyperparameters; those left out have their defaults.

    The arguments of the detector's `build`, and `n_epochs`, `batch_size` and `patience`.
    """

    name: str = "brain_cvae"
    hyperparameters: dict[str, object] = field(default_factory=dict)
    seed: int = 0

    def complete(self) -> "DetectorSpec":
        """The same with every hyperparameter written out."""
        defaults = _defaults(detector_module(self.name))
        unknown = sorted(set(self.hyperparameters) - set(defaults))
        if unknown:
            raise TrainingError(
                f"{self.name} has no hyperparameter {', '.join(unknown)}. "
                f"Known: {', '.join(defaults)}."
            )
        return DetectorSpec(self.name, defaults | self.hyperparameters, self.seed)

    def build(self) -> nn.Module:
        """The untrained module; its weights depend on the seed alone."""
        module = detector_module(self.name)
        hyperparameters = self.complete().hyperparameters
        with loop.seeded(self.seed, torch.device("cpu")):
            return module.build(
                **{n: v for n, v in hyperparameters.items() if n not in module.SCHEDULE}
            )


@dataclass(frozen=True)
class FittedDetector:
    """A trained detector and where it is kept."""

    key: str
    folder: Path
    spec: DetectorSpec  # complete
    module: nn.Module = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    best_epoch: int
    seconds: float  # of the training, whenever it was
    trained: bool  # now; False when it was found in the cache
    dataset: Dataset = field(repr=False)
    splits: Splits = field(repr=False)
    device: torch.device
    cache: Cache = field(repr=False)

    def error_maps(self, indices: np.ndarray) -> ErrorMaps:
        """Error maps of these images; the whole validation and test splits' are kept on disk."""
        values = self._kept_maps(indices) if self._is_split(indices) else self._maps(indices)
        return ErrorMaps(values, self.dataset.labels[indices], self.dataset.groups[indices])

    def reconstructions(self, indices: np.ndarray) -> np.ndarray:
        """x_hat of these images, float32 (k, h, w) in [0, 1]."""
        return error_maps.reconstruct(self.module, self.dataset.images[indices], device=self.device)

    def _is_split(self, indices: np.ndarray) -> bool:
        return any(np.array_equal(indices, split) for split in (self.splits.val, self.splits.test))

    def _maps(self, indices: np.ndarray) -> np.ndarray:
        return error_maps.scaled_errors(
            self.module, self.dataset.images[indices], device=self.device
        )

    def _kept_maps(self, indices: np.ndarray) -> np.ndarray:
        def make(folder: Path) -> None:
            checkpoint.save_arrays({"values": self._maps(indices)}, folder / MAPS)

        entry = f"{self.key}-{make_key(indices=indices.tolist())[:12]}"
        return checkpoint.load_arrays(self.cache.get_or_make(entry, make) / MAPS)["values"]


def fit_detector(
    spec: DetectorSpec,
    dataset: Dataset,
    splits: Splits,
    *,
    device: torch.device,
    precision: str,
    cache: Cache,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_train: Callable[[], None] | None = None,
) -> FittedDetector:
    """Train on the healthy images of `splits.train`, or find what an equal training left.

    Early stopping watches the healthy images of `splits.val`; `val_auroc` is measured on all of
    it. `on_train` is called before a training starts, `on_epoch` as epochs end; what they raise
    goes through and nothing is kept. Test images are not touched.
    """
    spec = spec.complete()
    trained = False

    def make(folder: Path) -> None:
        nonlocal trained
        trained = True
        if on_train:
            on_train()
        module, training = _train(spec, dataset, splits, device, precision, on_epoch)
        checkpoint.save_weights(module, folder / WEIGHTS)
        record = {"spec": asdict(spec), **training._asdict()}
        (folder / TRAINING).write_text(json.dumps(record, indent=1))

    key = _key(spec, dataset, splits, device, precision)
    folder = cache.get_or_make(key, make)
    module = spec.build()
    checkpoint.load_weights(module, folder / WEIGHTS)
    record = json.loads((folder / TRAINING).read_text())
    return FittedDetector(
        key=key,
        folder=folder,
        spec=spec,
        module=module.to(device).eval(),
        history=record["history"],
        best_epoch=record["best_epoch"],
        seconds=record["seconds"],
        trained=trained,
        dataset=dataset,
        splits=splits,
        device=device,
        cache=cache,
    )


@remember
def detectors() -> dict[str, ModuleType]:
    """The detectors among the modules of `models`, by name."""
    names = sorted(entry.name for entry in pkgutil.iter_modules(models.__path__) if not entry.ispkg)
    modules = {name: import_module(f"models.{name}") for name in names}
    return {name: module for name, module in modules.items() if _builds_detector(module)}


def detector_module(name: str) -> ModuleType:
    """The module of `models` that builds the detector of this name."""
    if name not in detectors():
        raise TrainingError(f"Unknown detector {name!r}. Known: {', '.join(detectors())}.")
    return detectors()[name]


def _builds_detector(module: ModuleType) -> bool:
    built = get_type_hints(module.build).get("return") if hasattr(module, "build") else None
    return hasattr(built, "error_map")


def _defaults(module: ModuleType) -> dict[str, object]:
    arguments = inspect.signature(module.build).parameters
    return {name: argument.default for name, argument in arguments.items()} | module.SCHEDULE


def _key(spec, dataset, splits, device, precision) -> str:
    return make_key(
        **asdict(spec),
        data=dataset.digest,
        indices=[splits.train.tolist(), splits.val.tolist()],
        device=device.type,
        precision=precision,
        code=code_digest(detector_module(spec.name), loop, error_maps, inspect.getmodule(_key)),
    )


def _train(spec, dataset, splits, device, precision, on_epoch) -> tuple[nn.Module, Training]:
    val_labels = dataset.labels[splits.val]
    val_images = dataset.images[splits.val]
    train_healthy = splits.train[dataset.labels[splits.train] == 0]

    def val_auroc(module: nn.Module) -> dict[str, float]:
        errors = error_maps.scaled_errors(module, val_images, device=device)
        return {"val_auroc": float(roc_auc_score(val_labels, errors.mean(axis=(1, 2))))}

    module = spec.build()
    schedule = {name: spec.hyperparameters[name] for name in ("n_epochs", "batch_size", "patience")}
    training = loop.fit(
        module,
        dataset.images[train_healthy],
        val_images[val_labels == 0],
        **schedule,
        seed=spec.seed,
        device=device,
        precision=precision,
        monitor=val_auroc,
        on_epoch=on_epoch,
    )
    return module, training
