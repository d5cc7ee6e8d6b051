"""Models that hold everything from the image to the answer: logged to a run, and registered.

Owns how a folder becomes an MLflow model without pickle, and which version of a name it is.
Knows neither what is in the folder nor which model deserves to be registered.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

from mlflow_server import pyfunc_generator, pyfunc_model
from mlflow_server.connection import TrackingError, connect, tracking_errors

NO_PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"


def image_signature() -> ModelSignature:
    """A batch of grey uint8 images of any size in, label and score out.

    MLflow would refuse a list of images of different sizes, which no tensor can be. Saying that
    the signature comes from a type hint leaves the check to the model itself, which takes both.
    """
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, -1, -1))]),
        outputs=Schema([ColSpec(DataType.long, "label"), ColSpec(DataType.double, "score")]),
    )
    signature._is_signature_from_type_hint = True
    return signature


def sample_signature() -> ModelSignature:
    """A class and a seed a row in, a slice each out: uint8 (n, 128, 128)."""
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.long, "label"), ColSpec(DataType.long, "seed")]),
        outputs=Schema([TensorSpec(np.dtype("uint8"), (-1, 128, 128))]),
    )


class Flavour(NamedTuple):
    """How MLflow calls a model: its code, what it takes and gives, and an example of that."""

    code: str
    signature: ModelSignature
    example: np.ndarray | pd.DataFrame


def tells() -> Flavour:
    """A model that tells tumours in images."""
    return Flavour(pyfunc_model.__file__, image_signature(), np.zeros((2, 128, 128), np.uint8))


def makes() -> Flavour:
    """A model that makes images of a class."""
    asked = pd.DataFrame({"label": [0, 1], "seed": [0, 1]})
    return Flavour(pyfunc_generator.__file__, sample_signature(), asked)


def log_model(
    tracking_uri: str,
    run_id: str,
    folder: Path,
    *,
    name: str,
    flavour: Flavour,
    loader: str,
    code_paths: Sequence[Path],
    pip_requirements: Sequence[str],
    metadata: Mapping[str, object],
) -> str:
    """Log `folder` as a model of the run and return its address, `models:/<id>`.

    `loader` names the function that turns the folder into an object that `flavour` calls; the
    packages in `code_paths` travel with the model. A run's model of a name is logged once; neither
    the run's status nor the active run of the process changes.
    """
    client = connect(tracking_uri)
    with tracking_errors(f"Logging the model {name} of run {run_id}"):
        run = client.get_run(run_id)
        logged = _logged_model(client, run, name)
        if logged is not None:
            return f"models:/{logged.model_id}"
        made = client.create_logged_model(
            run.info.experiment_id, name=name, source_run_id=run_id, params=run.data.params
        )
        with _failed_unless_ready(client, made.model_id), TemporaryDirectory() as scratch:
            mlflow.pyfunc.save_model(
                path=Path(scratch) / "model",
                mlflow_model=Model(
                    artifact_path=made.artifact_location,
                    run_id=run_id,
                    model_uuid=made.model_id,
                    model_id=made.model_id,
                ),
                python_model=flavour.code,
                model_config={"loader": loader},
                artifacts={"model": str(folder)},
                code_paths=[str(path) for path in code_paths],
                signature=flavour.signature,
                input_example=flavour.example,
                pip_requirements=list(pip_requirements),
                metadata=dict(metadata),
            )
            client.log_model_artifacts(made.model_id, str(Path(scratch) / "model"))
        client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return f"models:/{made.model_id}"


def register(
    tracking_uri: str,
    model_uri: str,
    name: str,
    *,
    alias: str = "candidate",
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Give a logged model the next version of `name`, and the alias to that version.

    A model that has a version of this name keeps it.
    """
    client = connect(tracking_uri)
    with tracking_errors(f"Registering {model_uri} as {name}"):
        model = client.get_logged_model(model_uri.removeprefix("models:/"))
        version = _version_of(client, name, model)
        if version is None:
            version = _create_version(client, name, model, tags, description)
        client.set_registered_model_alias(name, alias, version)
        return version


def load_model(tracking_uri: str, uri: str) -> mlflow.pyfunc.PyFuncModel:
    """The model at `models:/<name>@<alias>` or `models:/<id>`; one with pickle in it is refused.

    MLflow looks such addresses up where the process points to: `tracking_uri` from here on.
    """
    connect(tracking_uri)
    mlflow.set_tracking_uri(tracking_uri)
    with tracking_errors(f"Loading {uri}"), _pickle_refused():
        return mlflow.pyfunc.load_model(uri)


def version_tags(tracking_uri: str, uri: str) -> dict[str, str]:
    """The tags of the version at `models:/<name>@<alias>` or `models:/<name>/<version>`."""
    named = re.fullmatch(r"models:/([^@/]+)([@/])(.+)", uri)
    if named is None:
        raise TrackingError(
            f"MODEL must be models:/<name>@<alias> or models:/<name>/<version>, got {uri}."
        )
    name, mark, which = named.groups()
    client = connect(tracking_uri)
    with tracking_errors(f"Looking for {uri}"):
        if mark == "@":
            return dict(client.get_model_version_by_alias(name, which).tags)
        return dict(client.get_model_version(name, which).tags)


def _logged_model(client: MlflowClient, run: Run, name: str) -> LoggedModel | None:
    found = client.search_logged_models(
        [run.info.experiment_id],
        f"source_run_id = '{run.info.run_id}' AND name = '{name}'",
    )
    return next((model for model in found if model.status == LoggedModelStatus.READY), None)


@contextmanager
def _failed_unless_ready(client: MlflowClient, model_id: str) -> Iterator[None]:
    """What an error or Ctrl-C leaves half-written is marked as such, and never found again."""
    status = LoggedModelStatus.FAILED
    try:
        yield
        status = LoggedModelStatus.READY
    finally:
        client.finalize_logged_model(model_id, status)


def _version_of(client: MlflowClient, name: str, model: LoggedModel) -> str | None:
    versions = client.search_model_versions(f"name = '{name}' AND run_id = '{model.source_run_id}'")
    return next((v.version for v in versions if v.source == model.artifact_location), None)


def _create_version(
    client: MlflowClient, name: str, model: LoggedModel, tags: Mapping[str, str], description: str
) -> str:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        name,
        source=model.artifact_location,
        run_id=model.source_run_id,
        model_id=model.model_id,
        tags=dict(tags),
        description=description,
    )
    return made.version


@contextmanager
def _pickle_refused() -> Iterator[None]:
    before = os.environ.get(NO_PICKLE)
    os.environ[NO_PICKLE] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[NO_PICKLE]
        else:
            os.environ[NO_PICKLE] = before
