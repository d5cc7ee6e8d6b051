"""A generator: trained once on the images of one class, then kept.

Owns what identifies a fit, when its samples are looked at, and what a failed generator looks like.
Knows nothing of the network inside (any module of `models` whose `build` returns something with a
`generate` is a generator), of how samples are judged or of what they are used for.
"""

import hashlib
import inspect
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training import checkpoint, loop
from training.cache import Cache, code_digest, make_key
from training.families import modules_that_build
from training.kept_fit import keep_fit
from training.loop import Training, TrainingError, as_input
from training.resumption import Resumption, beside

PROGRESS = "progress.safetensors"
LOOKS = 10  # times that samples are looked at during a training
JUDGED = 200  # samples at each look; our choice: enough to rank epochs by
SHOWN = 16  # of them are kept as pictures
BATCH = 64  # images made at a time, which bounds the memory
# Our choice: samples differ from one another, or their pixels do, by less than this share of what
# real images show. Such samples are given a distance beyond any that is measured.
COLLAPSED_SPREAD, EMPTY_CONTRAST = 0.02, 0.1
WORST_KID = 1e4


class GeneratorFailed(TrainingError):
    """The generator diverged or collapsed; the message says which, and the cure."""


class SampleMeasure(Protocol):
    """Measures samples against real images, both uint8 (n, h, w); `val_kid` is what ranks them."""

    name: str

    def __call__(self, samples: np.ndarray) -> dict[str, float]: ...


@dataclass(frozen=True)
class GeneratorSpec:
    """Which generator, with which hyperparameters; those left out have their defaults.

    The arguments of the generator's `build` and its SCHEDULE (`n_epochs`, `batch_size`,
    `patience`).
    """

    name: str = "vae"
    hyperparameters: dict[str, object] = field(default_factory=dict)
    seed: int = 0

    def complete(self) -> "GeneratorSpec":
        """The same with every hyperparameter written out."""
        module = generator_module(self.name)
        arguments = inspect.signature(module.build).parameters
        defaults = {name: argument.default for name, argument in arguments.items()}
        defaults |= module.SCHEDULE
        unknown = sorted(set(self.hyperparameters) - set(defaults))
        if unknown:
            raise TrainingError(
                f"{self.name} has no hyperparameter {', '.join(unknown)}. "
                f"Known: {', '.join(defaults)}."
            )
        return GeneratorSpec(self.name, defaults | self.hyperparameters, self.seed)

    def build(self) -> nn.Module:
        """The generator before its fit; its weights depend on the seed alone."""
        module = generator_module(self.name)
        hyperparameters = self.complete().hyperparameters
        own = {n: v for n, v in hyperparameters.items() if n not in module.SCHEDULE}
        with loop.seeded(self.seed, torch.device("cpu")):
            return module.build(**own)


@dataclass(frozen=True)
class FittedGenerator:
    """A fitted generator of one class and where it is kept."""

    key: str  # of the fit: equal keys, equal weights
    folder: Path
    spec: GeneratorSpec  # complete
    label: int
    network: nn.Module = field(repr=False)
    device: torch.device
    history: list[dict[str, float]] = field(repr=False)
    best_epoch: int
    seconds: float  # of the fit, whenever it was
    trained: bool  # now; False when it was found in the cache

    def sample(self, n: int, seed: int) -> np.ndarray:
        """n images, uint8 (n, 128, 128); equal seeds make equal images."""
        return as_images(self.network, _latent(self.network, n, seed), self.device)

    def interpolate(self, seed_a: int, seed_b: int, steps: int) -> np.ndarray:
        """The way from one sample to another, ends included: uint8 (steps, 128, 128)."""
        ends = [_latent(self.network, 1, seed) for seed in (seed_a, seed_b)]
        shares = torch.linspace(0, 1, steps)[:, None]
        return as_images(self.network, _great_circle(*ends, shares), self.device)

    def progress(self) -> dict[int, np.ndarray]:
        """Samples at fixed noise by the epoch after which they were made: uint8 (16, 128, 128)."""
        pictures = checkpoint.load_arrays(self.folder / PROGRESS)
        return {int(epoch): pictures[epoch] for epoch in sorted(pictures, key=int)}


def fit_generator(
    spec: GeneratorSpec,
    images: np.ndarray,
    val_images: np.ndarray,
    *,
    label: int,
    cache: Cache,
    device: torch.device,
    precision: str,
    judge: SampleMeasure | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    on_train: Callable[[], None] | None = None,
    on_samples: Callable[[int, np.ndarray], None] | None = None,
) -> FittedGenerator:
    """Fit on images of one class, uint8 (n, h, w), or find what an equal fit left.

    A few times during training samples at fixed noise are shown to `on_samples(epoch, samples)`
    and measured by the judge. The best epoch is that of the metric that the generator's module
    watches, or the last one where that is the judge's and there is none. `on_train` is called
    before a fit starts, `on_epoch` as epochs end; what they raise goes through and nothing is
    kept. Raises GeneratorFailed where training diverges or samples collapse.
    """
    spec = spec.complete()
    _check_images(images, val_images)
    fit = _Fit(spec, images, val_images, device, precision, judge, on_epoch, on_samples)
    key = fit.key(label)

    def run(folder: Path) -> tuple[nn.Module, Training]:
        fitted = fit.run(beside(folder, fit))
        checkpoint.save_arrays(fit.pictures, folder / PROGRESS)
        return fitted

    kept = keep_fit(
        cache,
        key,
        build=spec.build,
        fit=run,
        about={"spec": asdict(spec), "label": label},
        device=device,
        on_train=on_train,
    )
    return FittedGenerator(key=key, spec=spec, label=label, device=device, **kept._asdict())


@dataclass
class _Fit:
    """One fit: what it is of, on which images, and what its samples looked like on the way."""

    spec: GeneratorSpec
    images: np.ndarray
    val_images: np.ndarray
    device: torch.device
    precision: str
    judge: SampleMeasure | None
    on_epoch: Callable[[int, dict[str, float]], None] | None
    on_samples: Callable[[int, np.ndarray], None] | None
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    epoch: int = 0
    looked: dict[str, float] = field(default_factory=dict)  # what the last look measured

    def run(self, resumption: Resumption) -> tuple[nn.Module, Training]:
        """Train, then fit what codes are drawn from to the network of the best epoch."""
        started = time.perf_counter()
        network = self.spec.build()
        schedule = generator_module(self.spec.name).SCHEDULE
        try:
            training = loop.fit(
                network,
                self.images,
                self.val_images,
                **{name: self.spec.hyperparameters[name] for name in schedule},
                seed=self.spec.seed,
                device=self.device,
                precision=self.precision,
                watched=self.watched,
                monitor=self._monitor,
                on_epoch=self.on_epoch,
                resumption=resumption,
            )
        except GeneratorFailed:
            raise
        except TrainingError as error:
            raise GeneratorFailed(str(error)) from error
        network.eval()
        self._learn_prior(network)
        _check_variety(self._variety(self._samples(network)), "the best epoch")
        return network, training._replace(seconds=time.perf_counter() - started)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What the looks at samples have left, for a training that is cut short."""
        pictures = {epoch: torch.from_numpy(picture) for epoch, picture in self.pictures.items()}
        return pictures, {"epoch": self.epoch, "looked": self.looked}

    def set_state(self, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
        """Be as it was then, and show again what was shown."""
        self.epoch, self.looked = rest["epoch"], rest["looked"]
        for epoch in sorted(tensors, key=int):
            self.pictures[epoch] = tensors[epoch].numpy()
            if self.on_samples:
                self.on_samples(int(epoch), self.pictures[epoch])

    @property
    def watched(self) -> str:
        """The metric that the best epoch is the lowest of."""
        watched = generator_module(self.spec.name).WATCHED
        return "epochs_left" if watched == "val_kid" and not self.judge else watched

    def key(self, label: int) -> str:
        """Equal keys, equal weights."""
        code = (*generators().values(), loop, inspect.getmodule(_Fit))  # one may import another
        return make_key(
            spec=asdict(self.spec),
            label=label,
            images=[_digest(self.images), _digest(self.val_images)],
            device=self.device.type,
            precision=self.precision,
            judge=self.judge.name if self.judge else None,
            code=code_digest(*code),
        )

    def _monitor(self, network: nn.Module) -> dict[str, float]:
        """What the last look at the samples measured; an epoch in between repeats it."""
        n_epochs = self.spec.hyperparameters["n_epochs"]
        self.epoch += 1
        if self.epoch == 1 or self.epoch == n_epochs or self.epoch % max(1, n_epochs // LOOKS) == 0:
            self.looked = self._look(network)
        return self.looked | {"epochs_left": float(n_epochs - self.epoch)}

    def _look(self, network: nn.Module) -> dict[str, float]:
        self._learn_prior(network)
        samples = self._samples(network)
        self.pictures[str(self.epoch)] = samples[:SHOWN]
        if self.on_samples:
            self.on_samples(self.epoch, samples[:SHOWN])
        measured = self._variety(samples)
        if 2 * self.epoch > self.spec.hyperparameters["n_epochs"]:  # earlier it may be untrained
            _check_variety(measured, f"epoch {self.epoch}")
        if not self.judge:
            return measured
        if _fault(measured):  # a judge of tumours may well take an empty image for a healthy one
            return measured | {"val_kid": WORST_KID}
        return measured | self.judge(samples)

    def _samples(self, network: nn.Module) -> np.ndarray:
        return as_images(network, _latent(network, JUDGED, self.spec.seed), self.device)

    def _variety(self, samples: np.ndarray) -> dict[str, float]:
        """How much samples differ from one another, and their pixels, real images being 1."""
        return {
            "sample_spread": _ratio(samples.std(axis=0), self.images.std(axis=0)),
            "sample_contrast": _ratio(samples.std(axis=(1, 2)), self.images.std(axis=(1, 2))),
        }

    def _learn_prior(self, network: nn.Module) -> None:
        if hasattr(network, "learn_prior"):
            batches = torch.from_numpy(self.images).split(BATCH)
            network.learn_prior(as_input(batch.to(self.device)) for batch in batches)


def generators() -> dict[str, ModuleType]:
    """The generators among the modules of `models`, by name."""
    return modules_that_build("generate")


def generator_module(name: str) -> ModuleType:
    """The module of `models` that builds the generator of this name."""
    if name not in generators():
        raise TrainingError(f"Unknown generator {name!r}. Known: {', '.join(generators())}.")
    return generators()[name]


def _check_images(images: np.ndarray, val_images: np.ndarray) -> None:
    for name, given in {"training": images, "validation": val_images}.items():
        if len(given) < 2:
            raise TrainingError(
                f"A generator needs at least 2 {name} images of its class, got {len(given)}."
            )


def _check_variety(variety: dict[str, float], which: str) -> None:
    if fault := _fault(variety):
        raise GeneratorFailed(
            f"The generator collapsed: samples of {which} {fault}. Lower its learning rate, or "
            "train it longer."
        )


def _fault(variety: dict[str, float]) -> str:
    """What is wrong with samples of this variety; nothing where they may be slices."""
    spread, contrast = variety["sample_spread"], variety["sample_contrast"]
    if spread < COLLAPSED_SPREAD:
        return f"differ from one another by {spread:.3f} of what real images do"
    if contrast < EMPTY_CONTRAST:
        return f"have {contrast:.3f} of the contrast of real images"
    return ""


def _ratio(made: np.ndarray, real: np.ndarray) -> float:
    return float(made.mean() / max(real.mean(), 1e-6))


def _latent(network: nn.Module, n: int, seed: int) -> Tensor:
    """On the CPU, so that equal seeds are equal noise on every device."""
    return network.sample_latent(n, torch.Generator().manual_seed(seed))


@torch.no_grad()
def as_images(network: nn.Module, z: Tensor, device: torch.device) -> np.ndarray:
    """What codes (n, latent_dim) become: uint8 (n, 128, 128)."""
    parts = [network.generate(part.to(device)).cpu() for part in z.split(BATCH)]
    return torch.cat(parts).squeeze(1).mul(255).round().byte().numpy()


def _great_circle(start: Tensor, end: Tensor, shares: Tensor) -> Tensor:
    """Points between two codes (1, d) at these shares (n, 1) of the way.

    Along a great circle, since normal noise lies on a sphere: halfway on a straight line the code
    would be shorter than any that was drawn (White 2016, "Sampling generative networks").
    """
    lengths = torch.lerp(start.norm(), end.norm(), shares)
    start, end = start / start.norm(), end / end.norm()
    angle = torch.acos((start * end).sum().clamp(-1, 1))
    if angle.sin() < 1e-4:
        return lengths * torch.lerp(start, end, shares)
    turned = torch.sin((1 - shares) * angle) * start + torch.sin(shares * angle) * end
    return lengths * turned / angle.sin()


def _digest(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images)).hexdigest()[:32]
