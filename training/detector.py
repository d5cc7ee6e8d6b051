"""A detector: fitted on healthy images once, then kept.

Owns what identifies a fit, what it learns from and is validated on, and the folder that keeps it.
Knows nothing of the network inside (any module of `models` whose `build` returns something with an
`error_map` is a detector), of heads or of studies.
"""

import inspect
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from models import error_mapper
from models.error_mapper import ErrorMapper, Flip
from models.heads import MapScore
from training import error_maps, intensity, loop
from training.cache import code_digest, make_key
from training.data import Splits
from training.error_maps import ErrorMaps, map_images, prepared
from training.families import modules_that_build
from training.features import FeatureStore
from training.kept_fit import keep_fit
from training.loop import Training, TrainingError
from training.resumption import Resumption, beside

# How errors become maps can change after a fit; the grey values that it saw cannot.
AFTER_FIT = tuple(name for name in error_mapper.DEFAULTS if name != "intensity")


@dataclass(frozen=True)
class DetectorSpec:
    """Which detector, with which hyperparameters; those left out have their defaults.

    The arguments of the detector's `build`, its SCHEDULE (`n_epochs`, `batch_size`, `patience`),
    and what every detector has: `intensity`, `flips`, `smoothing`, `brain_mask`, `scaling`.
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

    def fitted(self) -> dict[str, object]:
        """The hyperparameters that a fit depends on; the others may change after it."""
        module = detector_module(self.name)
        after = {*AFTER_FIT, *getattr(module, "AFTER_FIT", ())}
        return {n: v for n, v in self.complete().hyperparameters.items() if n not in after}

    def build(self) -> ErrorMapper:
        """The detector before its fit; its weights depend on the seed alone."""
        module = detector_module(self.name)
        hyperparameters = self.complete().hyperparameters
        own = inspect.signature(module.build).parameters
        with loop.seeded(self.seed, torch.device("cpu")):
            return ErrorMapper(
                module.build(**{name: hyperparameters[name] for name in own}),
                **{name: hyperparameters[name] for name in error_mapper.DEFAULTS},
            )


@dataclass(frozen=True)
class FittedDetector:
    """A fitted detector and where it is kept."""

    key: str  # of the fit: equal keys, equal weights
    folder: Path
    spec: DetectorSpec  # complete
    mapper: ErrorMapper = field(repr=False)
    history: list[dict[str, float]] = field(repr=False)
    best_epoch: int  # 0 where nothing is trained by gradient
    seconds: float  # of the fit, whenever it was
    trained: bool  # now; False when it was found in the cache
    store: FeatureStore = field(repr=False)

    @property
    def map_key(self) -> str:
        """Equal keys, equal maps."""
        return make_key(fit=self.key, hyperparameters=self.spec.hyperparameters)

    def error_maps(self, indices: np.ndarray) -> ErrorMaps:
        """Error maps of these images."""
        dataset = self.store.dataset
        values = map_images(
            self.mapper,
            dataset.images[indices],
            device=self.store.device,
            features=_features(self.mapper, self.spec, self.key, self.store, indices),
        )
        return ErrorMaps(values, dataset.labels[indices], dataset.groups[indices])

    def reconstructions(self, indices: np.ndarray) -> np.ndarray | None:
        """x_hat of these images, float32 (k, h, w) in [0, 1]; None from what does not reconstruct.

        Images are seen as the detector sees them.
        """
        if not hasattr(self.mapper.network, "reconstruct"):
            return None
        images = self.store.dataset.images[indices]
        return error_maps.reconstruct(self.mapper, images, device=self.store.device)


def fit_detector(
    spec: DetectorSpec,
    splits: Splits,
    store: FeatureStore,
    *,
    precision: str,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_train: Callable[[], None] | None = None,
) -> FittedDetector:
    """Fit on the healthy images of `splits.train`, or find what an equal fit left.

    Early stopping watches the healthy images of `splits.val`; `val_auroc`, the maps' own AUROC, is
    measured on all of it. `on_train` is called before a fit starts, `on_epoch` as epochs end; what
    they raise goes through and nothing is kept. Test images are not touched. Detectors that this
    one is made of are fitted first.
    """
    spec = spec.complete()
    members = {
        name: fit_detector(
            _member(spec, name), splits, store, precision=precision, on_train=on_train
        )
        for name in getattr(spec.build().network, "members", ())
    }
    key = _key(spec, splits, store, precision, members)
    fit = _Fit(spec, splits, store, precision, members, key)
    kept = keep_fit(
        store.cache,
        key,
        build=spec.build,
        fit=lambda folder: fit.run(on_epoch, beside(folder)),
        about={"spec": asdict(spec)},
        device=store.device,
        on_train=on_train,
    )
    return FittedDetector(
        key=key,
        folder=kept.folder,
        spec=spec,
        mapper=kept.network,
        history=kept.history,
        best_epoch=kept.best_epoch,
        seconds=kept.seconds,
        trained=kept.trained,
        store=store,
    )


@dataclass(frozen=True)
class _Fit:
    """One fit: what it is of, and on which images."""

    spec: DetectorSpec
    splits: Splits
    store: FeatureStore
    precision: str
    members: dict[str, FittedDetector]
    key: str

    def run(self, on_epoch, resumption: Resumption) -> tuple[ErrorMapper, Training]:
        """Learn the grey values, then the network, then how large a healthy error is."""
        started = time.perf_counter()
        mapper = DetectorSpec(self.spec.name, self.spec.fitted(), self.spec.seed).build()
        for name, member in self.members.items():
            mapper.network.members[name].load_state_dict(member.mapper.state_dict())
        images, train = self.store.dataset.images, self._healthy(self.splits.train)
        if mapper.intensity == "histogram":
            mapper.template.copy_(torch.from_numpy(intensity.learn_template(images[train])))
        mapper.to(self.store.device)
        training = self._learn(mapper, train, on_epoch, resumption)
        mapper.reference.copy_(self._reference(mapper))
        return mapper, training._replace(seconds=time.perf_counter() - started)

    def _learn(
        self, mapper: ErrorMapper, train: np.ndarray, on_epoch, resumption: Resumption
    ) -> Training:
        """By gradient, from features, or nothing where the members are all there is to learn."""
        if hasattr(mapper.network, "train_step"):
            return self._train(mapper, train, on_epoch, resumption)
        if hasattr(mapper.network, "learn"):
            groups = torch.from_numpy(self.store.dataset.groups[train])
            features = self._features(mapper, train)(())
            device = self.store.device
            mapper.network.learn(features.to(device).float(), groups.to(device))
        return Training(best_epoch=0, history=[], seconds=0.0)

    def _train(
        self, mapper: ErrorMapper, train: np.ndarray, on_epoch, resumption: Resumption
    ) -> Training:
        dataset, val, device = self.store.dataset, self.splits.val, self.store.device
        schedule = {n: self.spec.hyperparameters[n] for n in ("n_epochs", "batch_size", "patience")}

        def val_auroc(network) -> dict[str, float]:
            images = dataset.images[val]  # the maps that count are made after the training
            maps = map_images(mapper, images, device=device, precision=self.precision)
            return {"val_auroc": map_auroc(maps, dataset.labels[val])}

        return loop.fit(
            mapper.network,
            prepared(mapper, dataset.images[train]),
            prepared(mapper, dataset.images[self._healthy(val)]),
            **schedule,
            seed=self.spec.seed,
            device=device,
            precision=self.precision,
            monitor=val_auroc,
            on_epoch=on_epoch,
            resumption=resumption,
        )

    def _reference(self, mapper: ErrorMapper) -> torch.Tensor:
        """The largest error of a healthy validation image, on average; of the network's own maps.

        On training images a memory would find the images themselves.
        """
        healthy = self._healthy(self.splits.val)
        features = self._features(mapper, healthy)
        errors = error_maps.raw_errors(
            mapper, self.store.dataset.images[healthy], device=self.store.device, features=features
        )
        return errors.amax(dim=(1, 2, 3)).mean().clamp(min=torch.finfo(torch.float32).tiny)

    def _features(self, mapper: ErrorMapper, indices: np.ndarray):
        return _features(mapper, self.spec, self.key, self.store, indices)

    def _healthy(self, indices: np.ndarray) -> np.ndarray:
        return indices[self.store.dataset.labels[indices] == 0]


def features_of(
    spec: DetectorSpec, store: FeatureStore, indices: np.ndarray
) -> Callable[[Flip], torch.Tensor]:
    """A frozen network's features of these images under each flip; nothing is fitted.

    Raises TrainingError where the detector's network is trained here.
    """
    spec = spec.complete()
    mapper = spec.build().to(store.device)
    if not hasattr(mapper.network, "extract") or len(mapper.network.members):
        raise TrainingError(f"{spec.name} has no frozen features here: its network is trained.")
    return _features(mapper, spec, "", store, indices)


def map_auroc(maps: np.ndarray, labels: np.ndarray) -> float:
    """What maps (n, h, w) in [0, 1] are worth without a head: AUROC of their 99th percentile.

    A tumour is a small part of a slice. The mean ranks the same maps far worse on validation
    images, and a map that is scaled by its own extremes has no maximum.
    """
    scores = MapScore("p99", threshold=0.0).fit(maps).decision_function(maps)
    return float(roc_auc_score(labels, scores))


def detectors() -> dict[str, ModuleType]:
    """The detectors among the modules of `models`, by name."""
    return modules_that_build("error_map")


def detector_module(name: str) -> ModuleType:
    """The module of `models` that builds the detector of this name."""
    if name not in detectors():
        raise TrainingError(f"Unknown detector {name!r}. Known: {', '.join(detectors())}.")
    return detectors()[name]


def _defaults(module: ModuleType) -> dict[str, object]:
    arguments = inspect.signature(module.build).parameters
    own = {name: argument.default for name, argument in arguments.items()}
    here = module.where_installed() if hasattr(module, "where_installed") else {}
    return own | here | module.SCHEDULE | error_mapper.DEFAULTS | getattr(module, "MAPPING", {})


def _member(spec: DetectorSpec, name: str) -> DetectorSpec:
    """What a detector that another is made of is fitted as: that one's grey values and pace."""
    hyperparameters = {"intensity": spec.hyperparameters["intensity"]}
    n_epochs = spec.hyperparameters.get("member_epochs")
    if n_epochs and "n_epochs" in detector_module(name).SCHEDULE:
        hyperparameters["n_epochs"] = n_epochs
    return DetectorSpec(name, hyperparameters, spec.seed)


def _features(
    mapper: ErrorMapper, spec: DetectorSpec, key: str, store: FeatureStore, indices: np.ndarray
) -> Callable[[Flip], torch.Tensor] | None:
    """What the network extracts of these images, where it extracts features."""
    if not hasattr(mapper.network, "extract"):
        return None
    extraction = _extraction(mapper, spec, key)
    return lambda flip: store.of(mapper, extraction, indices, flip)


def _extraction(mapper: ErrorMapper, spec: DetectorSpec, key: str) -> str:
    """A name for all that the features depend on but images and flip."""
    if len(mapper.network.members):
        return key
    module = detector_module(spec.name)
    chosen = {name: spec.hyperparameters[name] for name in (*module.EXTRACTION, "intensity")}
    return make_key(detector=spec.name, template=mapper.template.tolist(), **chosen)


def _key(
    spec: DetectorSpec,
    splits: Splits,
    store: FeatureStore,
    precision: str,
    members: dict[str, FittedDetector],
) -> str:
    parts: dict[str, Any] = {
        "name": spec.name,
        "hyperparameters": spec.fitted(),
        "seed": spec.seed,
        "data": store.dataset.digest,
        "indices": [splits.train.tolist(), splits.val.tolist()],
        "device": store.device.type,
        "precision": precision,
        "members": [member.key for member in members.values()],
    }
    mine = inspect.getmodule(_key)
    code = (detector_module(spec.name), error_mapper, loop, error_maps, intensity, mine)
    return make_key(**parts, code=code_digest(*code))
