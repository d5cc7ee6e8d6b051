"""What a study run holds from start to end: its data, its detector's surroundings, its identity.

Opening a session makes nothing but the data's prepared arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mlflow_server import DatasetUse
from studies.provenance import Commit, digest, installed_packages, read_commit
from studies.settings import (
    DEFAULT_DETECTOR,
    REAL,
    SEARCHED_DETECTOR,
    Settings,
    check_settings,
    full_name,
    generate_command,
    slug,
    synthetic_folder,
)
from studies.space import describe
from studies.study import Lab, Study, StudyError, find_study
from studies.upkeep.needs import weights_to_keep
from training.cache import Cache, make_key
from training.cache_room import GB, Room
from training.data import Dataset, Splits, leaks_by_class, load, split
from training.data.join import join
from training.data.synthetic import SyntheticSet, is_synthetic, read_synthetic
from training.detector import DetectorSpec
from training.device import cap_memory, device_summary, resolve_device, resolve_precision
from training.features import FeatureStore
from training.generator import generators


class Joined(NamedTuple):
    """What a study's data was before synthetic images were joined to it, and those."""

    dataset: Dataset
    splits: Splits
    synthetic: SyntheticSet


@dataclass(frozen=True)
class Session:
    """One study under one set of settings; `name` is what it is called everywhere."""

    study: Study
    settings: Settings
    lab: Lab
    name: str
    commit: Commit
    joined: Joined | None = None  # where training sees synthetic images

    @property
    def folder(self) -> Path:
        """Where this study keeps what is not yet, or not only, in MLflow."""
        return self.settings.root / "studies" / self.slug

    @property
    def slug(self) -> str:
        """The name as a folder and as a registered model."""
        return slug(self.name)

    @property
    def leaks(self) -> dict[int, float]:
        """For each class, the share of its test images with a copy outside the test split.

        Of the real images: what a generator saw is seen through its images.
        """
        return leaks_by_class(self.real_splits, self.real.labels, self.real.groups)

    @property
    def real(self) -> Dataset:
        """The real images alone."""
        return self.joined.dataset if self.joined else self.lab.dataset

    @property
    def real_splits(self) -> Splits:
        """Their split: also what a generator was fitted on, where there is one."""
        return self.joined.splits if self.joined else self.lab.splits

    @property
    def test_split(self) -> str:
        """The test images as one word: studies with the same one were scored on the same images."""
        checksums = self.real.manifest["sha256"].to_numpy()[self.real_splits.test]
        return make_key(images=sorted(checksums.tolist()))[:12]

    def specification(self) -> dict[str, Any]:
        """What must stay the same for trials to be comparable."""
        study, real = self.study, self.real
        return {
            "study": study.name,
            "space": describe(study.space),
            "objective": {"metric": study.metric, "direction": study.direction},
            "constraints": {one.metric: f">= {one.floor}" for one in study.constraints},
            "data": {
                "name": real.name,
                "digest": real.digest,
                "preprocess": real.preprocess,
                "split": self.settings.split,
                "seed": self.lab.seed,
            },
            **({"detector": self._detector()} if study.kind == "detector" else {}),
            **({"training images": self._training()} if self.joined else {}),
        }

    def facts(self) -> dict[str, str]:
        """What a reader needs to judge the numbers, as text."""
        real, splits = self.real, self.real_splits
        machine = device_summary(self.lab.device)
        healthy = "healthy " if self.study.scheme == "detector" else ""
        return {
            "data": f"{real.name}, {len(real.labels)} images in "
            f"{len(set(real.groups.tolist()))} groups of near-copies",
            "left out": f"{len(real.left_out)} unreadable files",
            "digest": real.digest,
            "split": f"{self.settings.split}, seed {self.lab.seed}: {len(splits.train)} {healthy}"
            f"to train, {len(splits.val)} to validate, {len(splits.test)} to test",
            **({"trained on": self._trained_on()} if self.joined else {}),
            "device": f"{machine['device_name']}, {machine['threads']} threads, "
            f"{self.lab.precision}",
            "commit": self.commit.hash[:12] + (" with changes" if self.commit.is_dirty else ""),
        }

    def tags(self) -> dict[str, str]:
        """What runs are filtered by, and what trials of one study may differ in; the digest is the
        real images'."""
        machine = device_summary(self.lab.device)
        return {
            "data": self.real.name,
            "data_digest": self.real.digest,
            "split": self.settings.split,
            "scheme": self.study.scheme,
            "leaks": str(max(self.leaks.values()) > 0).lower(),
            "seed": str(self.lab.seed),
            "device": self.lab.device.type,
            "device_name": machine["device_name"],
            "threads": machine["threads"],
            "precision": self.lab.precision,
            "mlflow.source.git.commit": self.commit.hash,
            "git_dirty": str(self.commit.is_dirty).lower(),
            "changes": self.commit.changes,
            "requirements": digest(installed_packages()),
            "train_on": self.settings.train_on,
            **(self._training() if self.joined else {}),
        }

    def lineage(self) -> list[DatasetUse]:
        """Which images each part of the split is made of."""
        real, splits = self.real, self.real_splits
        source = real.name if self.settings.data == "auto" else self.settings.data
        parts = {"training": splits.train, "validation": splits.val, "test": splits.test}
        uses = [
            DatasetUse(real.name, real.digest, source, context, len(part))
            for context, part in parts.items()
            if context != "training" or self.settings.train_on != "synthetic"
        ]
        if self.joined is None:
            return uses
        made, n = self.joined.synthetic, self._n_synthetic
        return [DatasetUse(made.name, made.digest, str(made.folder), "training", n), *uses]

    @property
    def _n_synthetic(self) -> int:
        return len(self.lab.dataset.labels) - len(self.real.labels)

    def _training(self) -> dict[str, str]:
        made = self.joined.synthetic
        return {"generator": made.origin.generator, "synthetic_digest": made.digest}

    def _trained_on(self) -> str:
        made = self.joined.synthetic
        real = (
            f" and {len(self.real_splits.train)} real" if self.settings.train_on == "mixed" else ""
        )
        return (
            f"{self._n_synthetic} synthetic{real} images; {made.name} by {made.origin.generator}, "
            f"{made.origin.source}"
        )

    def _detector(self) -> dict[str, Any]:
        searched = set(self.study.space)
        if "detector" in searched:
            return {"name": "searched"}
        complete = DetectorSpec(self.lab.detector).complete().hyperparameters
        fixed = {name: value for name, value in complete.items() if name not in searched}
        return {"name": self.lab.detector, **fixed}


def open_session(
    study: Study,
    settings: Settings,
    say: Callable[[str], None],
    *,
    cache: Cache | None = None,
    precision: str | None = None,
) -> Session:
    """Find or make everything that trials need; raises what is wrong with the input.

    What is made once is kept in `cache`, else below the settings' root; `precision` is otherwise
    what is faster here.
    """
    check_settings(study, settings)
    device = resolve_device(settings.device)
    cap_memory(device, settings.gpu_share)
    detector = settings.detector
    if detector == SEARCHED_DETECTOR:
        detector = DEFAULT_DETECTOR
        study = study.searching(find_study(detector))
    DetectorSpec(detector).complete()
    dataset = load(settings.data, preprocess=settings.preprocess, root=settings.root, say=say)
    splits = split(
        dataset.labels,
        dataset.groups,
        protocol=settings.split,
        scheme=study.scheme,
        seed=settings.seed,
    )
    name, joined = full_name(study, dataset, settings), None
    if settings.train_on != REAL:
        synthetic = find_synthetic(dataset, settings, study.scheme)
        joined = Joined(dataset, splits, synthetic)
        dataset, splits = join(
            dataset, splits, synthetic, mode=settings.train_on, scheme=study.scheme
        )
    lab = Lab(
        store=FeatureStore(dataset, cache or open_cache(settings), device, say),
        splits=splits,
        precision=precision or resolve_precision(device, root=settings.root / "cache"),
        seed=settings.seed,
        detector=detector,
    )
    return Session(study, settings, lab, name, read_commit(), joined)


def open_cache(settings: Settings) -> Cache:
    """The cache of these settings, in its limit."""
    needed = partial(weights_to_keep, settings.storage_url, settings.root)
    return Cache(settings.root / "cache", Room(settings.cache_gb * GB, needed))


def find_synthetic(dataset: Dataset, settings: Settings, scheme: str) -> SyntheticSet:
    """The set that GENERATOR names for this data, split and seed."""
    folder = synthetic_folder(dataset, settings, scheme)
    if is_synthetic(folder):
        return read_synthetic(folder)
    if settings.generator not in generators():
        raise StudyError(
            f"GENERATOR must be one of {', '.join(generators())} or a folder that `make generate` "
            f"wrote, got '{settings.generator}'."
        )
    raise StudyError(
        f"TRAIN_ON={settings.train_on} needs synthetic images in {folder}, and there are none. "
        f"Make them with `{generate_command(settings, scheme)}`."
    )
