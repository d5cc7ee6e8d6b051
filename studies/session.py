"""What a study run holds from start to end: its data, its detector's surroundings, its identity.

Opening a session makes nothing but the data's prepared arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.provenance import Commit, read_commit
from studies.settings import (
    DEFAULT_DETECTOR,
    SEARCHED_DETECTOR,
    Settings,
    check_settings,
    full_name,
    slug,
)
from studies.space import describe
from studies.study import Lab, Study, find_study
from training.cache import Cache
from training.data import leaks_by_class, load, split
from training.detector import DetectorSpec
from training.device import device_summary, resolve_device, resolve_precision
from training.features import FeatureStore


@dataclass(frozen=True)
class Session:
    """One study under one set of settings; `name` is what it is called everywhere."""

    study: Study
    settings: Settings
    lab: Lab
    name: str
    commit: Commit

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
        """For each class, the share of its test images with a copy outside the test split."""
        dataset = self.lab.dataset
        return leaks_by_class(self.lab.splits, dataset.labels, dataset.groups)

    def specification(self) -> dict[str, Any]:
        """What must stay the same for trials to be comparable."""
        study, lab = self.study, self.lab
        return {
            "study": study.name,
            "space": describe(study.space),
            "objective": {"metric": study.metric, "direction": study.direction},
            "constraints": {one.metric: f">= {one.floor}" for one in study.constraints},
            "data": {
                "name": lab.dataset.name,
                "digest": lab.dataset.digest,
                "preprocess": lab.dataset.preprocess,
                "split": self.settings.split,
                "seed": lab.seed,
            },
            "detector": self._detector(),
        }

    def facts(self) -> dict[str, str]:
        """What a reader needs to judge the numbers, as text."""
        dataset, splits = self.lab.dataset, self.lab.splits
        machine = device_summary(self.lab.device)
        return {
            "data": f"{dataset.name}, {len(dataset.labels)} images in "
            f"{len(set(dataset.groups.tolist()))} groups of near-copies",
            "left out": f"{len(dataset.left_out)} unreadable files",
            "digest": dataset.digest,
            "split": f"{self.settings.split}, seed {self.lab.seed}: {len(splits.train)} "
            f"{'healthy ' if self.study.scheme == 'detector' else ''}to train, "
            f"{len(splits.val)} to validate, {len(splits.test)} to test",
            "device": f"{machine['device_name']}, {machine['threads']} threads, "
            f"{self.lab.precision}",
            "commit": self.commit.hash[:12] + (" with changes" if self.commit.is_dirty else ""),
        }

    def tags(self) -> dict[str, str]:
        """What runs are filtered by."""
        return {
            "data": self.lab.dataset.name,
            "data_digest": self.lab.dataset.digest,
            "split": self.settings.split,
            "leaks": str(max(self.leaks.values()) > 0).lower(),
            "seed": str(self.lab.seed),
            "device": self.lab.device.type,
            "precision": self.lab.precision,
            "mlflow.source.git.commit": self.commit.hash,
            "git_dirty": str(self.commit.is_dirty).lower(),
        }

    def _detector(self) -> dict[str, Any]:
        searched = set(self.study.space)
        if "detector" in searched:
            return {"name": "searched"}
        complete = DetectorSpec(self.lab.detector).complete().hyperparameters
        fixed = {name: value for name, value in complete.items() if name not in searched}
        return {"name": self.lab.detector, **fixed}


def open_session(study: Study, settings: Settings, say: Callable[[str], None]) -> Session:
    """Find or make everything that trials need; raises what is wrong with the input."""
    check_settings(study, settings)
    device = resolve_device(settings.device)
    detector = settings.detector
    if detector == SEARCHED_DETECTOR:
        detector = DEFAULT_DETECTOR
        study = study.searching(find_study(detector))
    DetectorSpec(detector).complete()
    dataset = load(settings.data, preprocess=settings.preprocess, root=settings.root, say=say)
    lab = Lab(
        store=FeatureStore(dataset, Cache(settings.root / "cache"), device, say),
        splits=split(
            dataset.labels,
            dataset.groups,
            protocol=settings.split,
            scheme=study.scheme,
            seed=settings.seed,
        ),
        precision=resolve_precision(device, root=settings.root / "cache"),
        seed=settings.seed,
        detector=detector,
    )
    return Session(study, settings, lab, full_name(study, dataset, settings), read_commit())
