"""A platform on which studies have run, in miniature: runs with files, weights, models, aliases.

Everything is what the program itself writes, but networks are a few bytes and a model tells tumours
by the mean grey value.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import optuna
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, ViewType

from mlflow_server import Tracking, TrialRun, local_artifacts, local_uri
from mlflow_server.registry import (
    DIGEST,
    add_version,
    digest_files,
    load_model,
    log_model,
    set_alias,
    tells,
)
from mlflow_server.tracking import CLEANED_TAG
from mlflow_server.upkeep import local_folder
from studies.record import HOLDER, REPORTED, WEIGHTS_OF
from studies.settings import Settings, slug
from studies.storage import open_storage
from training.cache import Cache, make_key
from training.kept_fit import WEIGHTS

BRIGHTNESS = """
from pathlib import Path
import numpy as np
import pandas as pd

class Brightness:
    def __init__(self, limit):
        self.limit = limit

    def predict(self, images):
        score = np.array([image.mean() - self.limit for image in images])
        return pd.DataFrame({"label": (score >= 0).astype(np.int64), "score": score})

def load(folder):
    return Brightness(float((Path(folder) / "limit.txt").read_text()))
"""
IMAGE = np.full((4, 6), 200, np.uint8)


def make_template(folder: Path) -> Path:
    """A new platform's databases and one logged model, from which others are copied."""
    (folder / "code" / "brightness_model").mkdir(parents=True)
    (folder / "code" / "brightness_model" / "__init__.py").write_text(BRIGHTNESS)
    (folder / "limit").mkdir()
    (folder / "limit" / "limit.txt").write_text("0")
    root = folder / "var"
    tracking = Tracking(local_uri(root), local_artifacts(root))
    open_storage(f"sqlite:///{root / 'optuna.db'}")
    shutil.copytree(root, folder / "empty")
    experiment = tracking.experiments.open("template", note="", tags={})
    run = tracking.open_study(experiment, "template", params={}, tags={}, datasets=[])
    uri = log_model(
        tracking.uri,
        run,
        folder / "limit",
        name="model",
        flavour=tells(),
        loader="brightness_model:load",
        code_paths=[folder / "code" / "brightness_model"],
        pip_requirements=["numpy"],
        metadata={},
    )
    client = MlflowClient(tracking.uri, tracking.uri)
    model = client.get_logged_model(uri.removeprefix("models:/"))
    shutil.copytree(model.artifact_location.removeprefix("file://"), folder / "model")
    return folder


class House:
    """One platform below `root`; its studies maximize a value and have 0.5 as a floor."""

    def __init__(self, root: Path, template: Path, tracking_uri: str | None = None):
        self.root, self.template = root, template
        if not root.exists():
            shutil.copytree(template / "empty", root)
        self.storage_url = f"sqlite:///{root / 'optuna.db'}"
        self.uri = tracking_uri or local_uri(root)
        self.tracking = Tracking(self.uri, local_artifacts(root))
        self.client = MlflowClient(self.uri, self.uri)
        self.storage = open_storage(self.storage_url)
        self.limits = {}  # a model's address -> what it subtracts
        self.holders = {}  # key of weights -> run

    @property
    def settings(self) -> Settings:
        return Settings(self.root, self.storage_url, self.uri)

    def close(self) -> None:
        """Let go of the trials' database, so that it is one file and can be moved."""
        self.storage.remove_session()
        self.storage.engine.dispose()

    def study(self, name: str, *, direction="maximize") -> optuna.Study:
        """A study with its experiment and its parent run."""
        study = optuna.create_study(
            storage=self.storage, study_name=name, direction=direction, load_if_exists=True
        )
        experiment = self.tracking.experiments.open(name, note="", tags={"study": name})
        parent = self.tracking.open_study(experiment, name, params={}, tags={}, datasets=[])
        folder = self.root / "studies" / slug(name) / "evidence"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.html").write_text(f"the report of {name}")
        self.tracking.log_artifacts(parent, folder)
        self.tracking.close_study(parent, status="FINISHED", metrics={}, tags={}, note="")
        return study

    def trial(self, study: optuna.Study, value: float, *, network="a", feasible=True) -> str:
        """A trial over the network of that name, published; its run."""
        key = make_key(network=network)
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr(REPORTED, {"weights": {"detector": key}})
        trial.set_constraint("specificity", -1.0 if feasible else 1.0)
        study.tell(trial, value)
        return self.publish(study.study_name, trial.number, key)

    def publish(self, name: str, number: int, key: str) -> str:
        """The run of a trial over weights, which it holds where no other run does."""
        weights = Cache(self.root / "cache").get_or_make(key, lambda entry: fill(entry, key))
        folder = self.root / "studies" / slug(name) / "trials" / str(number) / "artifacts"
        (folder / "head").mkdir(parents=True)
        (folder / "head" / "predictor.json").write_text(json.dumps({"number": number}))
        (folder / "samples.png").write_bytes(b"png" * 100)
        holder = self.tracking.find_run(WEIGHTS_OF.format("detector"), key)
        if holder:
            tags = {HOLDER.format("detector"): holder}
        else:
            shutil.copytree(weights, folder / "detector")
            tags = {WEIGHTS_OF.format("detector"): key}
        experiment = self.tracking.experiments.ids()[name]
        run = TrialRun(
            study=name,
            trial=number,
            name=f"{name} {number:03}",
            status="FINISHED",
            start_ms=1_000 + number,
            end_ms=2_000 + number,
            params={"x": number},
            metrics={"f2": number / 100},
            tags=tags,
            artifacts=folder,
        )
        parent = self.tracking.find_study(experiment, name)
        made = self.tracking.publish_trial(experiment, parent, run)
        shutil.rmtree(folder.parent)
        return made

    def model(self, run_id: str) -> str:
        """A logged model of a run, as good as any other; its address."""
        run = self.client.get_run(run_id)
        made = self.client.create_logged_model(
            run.info.experiment_id, name="model", source_run_id=run_id
        )
        limit = len(self.limits) + 1
        folder = self.root / "copied"
        shutil.copytree(self.template / "model", folder)
        next(folder.rglob("limit.txt")).write_text(str(limit))
        self.client.log_model_artifacts(made.model_id, str(folder))
        self.client.set_logged_model_tags(made.model_id, {DIGEST: digest_files(folder)})
        shutil.rmtree(folder)
        self.client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)
        self.client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
        self.limits[f"models:/{made.model_id}"] = limit
        return f"models:/{made.model_id}"

    def version(self, model: str, name: str, *aliases: str) -> str:
        """A version of a registered model, with these aliases."""
        version = add_version(self.uri, model, name, tags={}, description="")
        for alias in aliases:
            set_alias(self.uri, name, alias, version)
        return version

    # What is asked afterwards

    def answers(self, address: str, model: str) -> bool:
        """Whether what is registered there loads and is that model."""
        score = load_model(self.uri, address).predict([IMAGE])["score"].item()
        return score == 200 - self.limits[model]

    def files(self, run_id: str) -> set[str]:
        """The files of a run."""
        folder = self.folder(run_id)
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def folder(self, run_id: str) -> Path:
        """Where a run's files lie."""
        return local_folder(self.client.get_run(run_id).info.artifact_uri)

    def has_weights(self, run_id: str, network="a") -> bool:
        """Whether a run, or the one that it links to, holds its weights unharmed."""
        tags = self.tracking.tags(run_id)
        file = self.folder(tags.get(HOLDER.format("detector"), run_id)) / "detector" / WEIGHTS
        return file.exists() and file.read_text() == make_key(network=network)

    def is_cleaned(self, run_id: str) -> bool:
        """Whether a run has lost its files and says so."""
        said = CLEANED_TAG in self.tracking.tags(run_id)
        assert said == (not self.files(run_id)), run_id
        return said

    def models(self) -> set[str]:
        """The addresses of all logged models that can be found."""
        ids = [one.experiment_id for one in self.client.search_experiments(ViewType.ALL)]
        return {f"models:/{one.model_id}" for one in self.client.search_logged_models(ids)}

    def numbers(self, run_id: str) -> tuple[dict, dict]:
        """A run's parameters and metrics."""
        data = self.client.get_run(run_id).data
        return data.params, data.metrics


def fill(entry: Path, key: str) -> None:
    """An entry of the cache that looks like a fit's; larger than what always stays."""
    (entry / WEIGHTS).write_text(key)
    (entry / "training.json").write_text("{}" + " " * (1 << 20))
