"""`make generate`: a synthetic set, from a generator of each class that saw training images alone.

Owns the order of things: what the generators are fitted with and on, how long that takes and how
much disk it needs, and what the set's manifest says. How a set lies on disk is
training.data.synthetic's.
"""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import torch
from rich.console import Console

from mlflow_server import Tracking, TrackingError
from mlflow_server.registry import version_tags
from studies.generation_measures import classifier_of_split
from studies.progress import format_seconds
from studies.record import OWN_FOLDER
from studies.session import open_cache
from studies.settings import Settings, generator_model, synthetic_folder
from studies.study import Lab, StudyError
from training.data import DataError, Dataset, load, split
from training.data.folder import CLASS_FOLDERS
from training.data.join import trained_classes
from training.data.synthetic import Origin, SyntheticSet, read_synthetic, write_synthetic
from training.device import resolve_device, resolve_precision
from training.features import FeatureStore
from training.fidelity import Comparison, Judge, lite_judge, variety
from training.generator import FittedGenerator, GeneratorSpec, fit_generator, generator_module
from training.generator_grids import sample_sheet
from training.loop import as_input
from training.memorization import memorization
from training.predictor import PREDICTOR

N_IMAGES = 1500  # a class (paper)
BATCH = 1500  # images in memory while they are written
DISK = 12 << 10  # bytes an image: real slices as PNG take 8 KB, noisier ones more
MEMORY = 64 << 10  # bytes an image while a study trains on them: pixels, masks and copies of both
MEASURED = 200  # samples that are compared with real images
SHOWN = 32  # of them are in a picture beside the set


@dataclass(frozen=True)
class Recipe:
    """With which hyperparameters a generator is fitted, and who says so."""

    spec: GeneratorSpec
    source: str


@dataclass(frozen=True)
class Workshop:
    """The real images that generators are fitted on, and where that happens."""

    lab: Lab
    protocol: str
    scheme: str

    @property
    def classes(self) -> dict[str, int]:
        """The labels that the scheme trains on, by the folder of their images."""
        trained = trained_classes(self.scheme)
        return {name: label for name, label in CLASS_FOLDERS.items() if label in trained}

    def images(self, part: str, label: int) -> tuple[np.ndarray, np.ndarray]:
        """One class's images in "train" or "val", and their groups of near-copies."""
        indices, dataset = self.indices(part, label), self.lab.dataset
        return dataset.images[indices], dataset.groups[indices]

    def indices(self, part: str, label: int) -> np.ndarray:
        """Where these images are in the data."""
        indices = self.lab.indices(part)
        return indices[self.lab.dataset.labels[indices] == label]


def generate(settings: Settings, *, n: int, scheme: str) -> SyntheticSet:
    """Make `n` images a class for studies of this scheme, or find them made.

    "classifier" trains on both classes, "detector" on healthy images alone and on more of them:
    each has a split, and so a set, of its own. Interrupted, it leaves what was there before; fitted
    generators are kept.
    """
    generator_module(settings.generator)
    check_room(n, len(trained_classes(scheme)), settings.root)
    workshop = open_workshop(settings, scheme)
    folder = synthetic_folder(workshop.lab.dataset, settings, scheme)
    recipe = find_recipe(settings, workshop.lab.dataset)
    origin = describe(recipe, workshop)
    if made := find_made(folder, origin, n):
        print(f"{folder} holds these images already; there is nothing to do.")
        return made
    print(plan(recipe, workshop, n, folder), flush=True)
    made = make_set(folder, recipe, workshop, origin, n)
    print(f"Written: {folder} ({len(made.labels)} images)")
    return made


def open_workshop(settings: Settings, scheme: str) -> Workshop:
    """The data as these settings name and split it, and the device."""
    device = resolve_device(settings.device)
    dataset = load(settings.data, preprocess=settings.preprocess, root=settings.root)
    splits = split(
        dataset.labels,
        dataset.groups,
        protocol=settings.split,
        scheme=scheme,
        seed=settings.seed,
    )
    lab = Lab(
        store=FeatureStore(dataset, open_cache(settings), device),
        splits=splits,
        precision=resolve_precision(device, root=settings.root / "cache"),
        seed=settings.seed,
    )
    return Workshop(lab, settings.split, scheme)


def check_room(n: int, n_classes: int, root: Path) -> None:
    """Refuse what the disk or the memory has no room for, with the estimate."""
    if n < 1:
        raise StudyError(f"N must be at least 1 image a class, got {n}.")
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    free_disk, free_memory = shutil.disk_usage(there).free, psutil.virtual_memory().available
    n_images = n * n_classes
    if n_images * DISK > free_disk or n_images * MEMORY > free_memory:
        raise StudyError(
            f"N={n} makes {n_images:,} images: about {gigabytes(n_images * DISK)} on disk, of "
            f"which {gigabytes(free_disk)} are free, and {gigabytes(n_images * MEMORY)} of memory "
            f"to train on them, of which {gigabytes(free_memory)} are. Ask for a smaller N; the "
            f"paper has {N_IMAGES}."
        )


def gigabytes(n_bytes: int) -> str:
    """A size as a person reads it."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.0f} MB"


def find_recipe(settings: Settings, dataset: Dataset) -> Recipe:
    """The hyperparameters of the best generator that is registered for this data, else the paper's.

    The networks are fitted anew where they are not kept: on this split, whose training images they
    may see.
    """
    spec = GeneratorSpec(settings.generator, seed=settings.seed).complete()
    address = generator_model(dataset, settings)
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)  # raises where it is away
    try:
        run_id = version_tags(settings.tracking_uri, address)["run_id"]
    except TrackingError:
        return Recipe(spec, f"the paper's values, since there is no {address}")
    with TemporaryDirectory() as scratch:
        file = tracking.download(run_id, f"{OWN_FOLDER}/{PREDICTOR}", Path(scratch))
        chosen = json.loads(file.read_text())["generator"]["hyperparameters"]
    return Recipe(
        replace(spec, hyperparameters=chosen).complete(), f"the values of {address}, run {run_id}"
    )


def describe(recipe: Recipe, workshop: Workshop) -> Origin:
    """What the manifest says of a set before it is measured."""
    dataset = workshop.lab.dataset
    checksums = dataset.manifest["sha256"].to_numpy()
    return Origin(
        generator=recipe.spec.name,
        source=recipe.source,
        hyperparameters=dict.fromkeys(workshop.classes, recipe.spec.hyperparameters),
        seed=recipe.spec.seed,
        data=dataset.name,
        data_digest=dataset.digest,
        preprocess=dataset.preprocess,
        protocol=workshop.protocol,
        scheme=workshop.scheme,
        seen={
            name: sorted(checksums[workshop.indices("train", label)].tolist())
            for name, label in workshop.classes.items()
        },
        measures={},
    )


def find_made(folder: Path, origin: Origin, n: int) -> SyntheticSet | None:
    """The set in a folder, if it is whole, of this origin, and has `n` images a class."""
    try:
        made = read_synthetic(folder)
    except DataError:
        return None
    counts = np.bincount(made.labels, minlength=2)
    expected = [n if name in origin.seen else 0 for name in ("no", "yes")]
    is_same = replace(made.origin, measures={}) == origin and counts.tolist() == expected
    return made if is_same else None


def plan(recipe: Recipe, workshop: Workshop, n: int, folder: Path) -> str:
    """What will be done, how long it takes and how much disk it needs."""
    spec = recipe.spec
    seconds = sum(
        seconds_an_epoch(spec, workshop, label) * spec.hyperparameters["n_epochs"]
        for label in workshop.classes.values()
    )
    counts = " and ".join(
        f"{len(workshop.indices('train', label))} of {name}/"
        for name, label in workshop.classes.items()
    )
    size = gigabytes(n * len(workshop.classes) * DISK)
    return (
        f"{spec.name} with {recipe.source}: a network a class, on {counts}.\n"
        f"At most {format_seconds(seconds)} of training, unless it is kept from before; then {n} "
        f"images a class, about {size}, in {folder}. Ctrl-C stops."
    )


def seconds_an_epoch(spec: GeneratorSpec, workshop: Workshop, label: int) -> float:
    """What an epoch takes here, by its second training step; the first warms up."""
    (images, _), device = workshop.images("train", label), workshop.lab.device
    batch_size = spec.hyperparameters["batch_size"]
    network = spec.build().to(device, memory_format=torch.channels_last).train()
    x = as_input(torch.from_numpy(images[:batch_size]).to(device))
    if hasattr(network, "begin_epoch"):
        network.begin_epoch(1, spec.hyperparameters["n_epochs"])
    for _ in range(2):
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=workshop.lab.precision == "bf16"):
            losses = network.train_step(x)
        sum(float(value) for value in losses.values())  # waits for the device
    return (time.perf_counter() - started) * len(images) / len(x)


def make_set(
    folder: Path, recipe: Recipe, workshop: Workshop, origin: Origin, n: int
) -> SyntheticSet:
    """Fit a generator a class, measure it, draw `n` images from it, and write all at once."""
    judge = find_judge(workshop)
    fitted, measures, sheets = {}, {}, {}
    for name, label in workshop.classes.items():
        comparison = compare(workshop, name, judge) if judge else None
        fitted[name] = fit_class(recipe.spec, workshop, name, comparison)
        samples = fitted[name].sample(MEASURED, origin.seed)
        measures[name] = measure(samples, comparison, workshop, label)
        sheets[name] = sample_sheet(samples[:SHOWN], f"{folder.name}, {name}/")
    images = {name: draw(generator, n, origin.seed) for name, generator in fitted.items()}
    made = write_synthetic(folder, images, replace(origin, measures=measures))
    for name, sheet in sheets.items():
        sheet.save(folder / f"{name}.png")
    return made


def find_judge(workshop: Workshop) -> Judge | None:
    """What samples are judged by: a classifier of this split, as in studies of generators.

    Without tumours to train on there is none, and a network that was trained elsewhere judges; None
    where that is not installed.
    """
    if len(workshop.classes) < 2:
        return lite_judge(workshop.lab.device)
    return classifier_of_split(workshop.lab)


def compare(workshop: Workshop, name: str, judge: Judge) -> Comparison:
    """A class's real validation images as the judge sees them."""
    images, groups = workshop.images("val", workshop.classes[name])
    try:
        return Comparison.of(images, judge, seed=workshop.lab.seed, groups=groups)
    except ValueError as error:
        raise StudyError(
            f"There are too few images in {name}/ to judge a generator by ({error}) Add more."
        ) from error


def fit_class(
    spec: GeneratorSpec, workshop: Workshop, name: str, comparison: Comparison | None
) -> FittedGenerator:
    """The generator of one class, fitted on its training images or found."""
    n_epochs, label = spec.hyperparameters["n_epochs"], workshop.classes[name]
    with Console().status(f"{spec.name} of {name}/ ...") as status:

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            left = format_seconds(metrics["seconds"] * (n_epochs - epoch))
            status.update(f"{spec.name} of {name}/: epoch {epoch} of {n_epochs}, {left} left")

        fitted = fit_generator(
            spec,
            workshop.images("train", label)[0],
            workshop.images("val", label)[0],
            label=label,
            cache=workshop.lab.cache,
            device=workshop.lab.device,
            precision=workshop.lab.precision,
            judge=comparison,
            on_epoch=on_epoch,
        )
    how = "trained" if fitted.trained else "kept from before, trained"
    took = format_seconds(fitted.seconds)
    print(f"{spec.name} of {name}/: {how} in {took}, best epoch {fitted.best_epoch}", flush=True)
    return fitted


def measure(
    samples: np.ndarray, comparison: Comparison | None, workshop: Workshop, label: int
) -> dict[str, float]:
    """How near samples are to validation images, how varied, and how near to training images.

    Where near-copies of training images are held out, nobody can tell what was memorised.
    """
    seed = workshop.lab.seed
    measures = variety(samples, seed=seed)
    if comparison:
        measures |= comparison.fidelity(samples)
    if workshop.protocol == "grouped":
        train, train_groups = workshop.images("train", label)
        held_out, held_out_groups = workshop.images("val", label)
        measures |= memorization(
            samples,
            train,
            held_out,
            train_groups=train_groups,
            held_out_groups=held_out_groups,
            judge=comparison.judge if comparison else None,
            seed=seed,
        ).metrics
    return measures


def draw(fitted: FittedGenerator, n: int, seed: int) -> Iterator[np.ndarray]:
    """n images, uint8 (k, 128, 128) at a time, each batch from noise of its own."""
    for start in range(0, n, BATCH):
        batch_seed = np.random.SeedSequence([seed, start]).generate_state(1)[0]
        yield fitted.sample(min(BATCH, n - start), int(batch_seed))
