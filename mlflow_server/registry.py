"""Models that hold everything from the image to the answer: logged to a run, and registered.

Owns how a folder becomes an MLflow model without pickle, which version of a name it is, and that
what is loaded are the files that were logged. Knows neither what is in the folder nor which model
deserves to be registered.
"""

import hashlib
import os
import re
import shutil
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.utils import requirements_utils

from mlflow_server import pyfunc_generator, pyfunc_model
from mlflow_server.connection import (
    TrackingError,
    connect,
    first_line,
    in_pages,
    is_server,
    tracking_errors,
)
from mlflow_server.files import fetch_model_files, local_folder, place, share

NO_PICKLE = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
DIGEST = "sha256"  # tag of a logged model and of its versions: the digest of its files
WRITTEN_BY_A_DOWNLOAD = "registered_model_meta"  # MLflow adds it to a copy, saying whose it is


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
    return Flavour(pyfunc_model.__file__, image_signature(), _two_heads())


def _two_heads() -> np.ndarray:
    """Discs on black, one with a bright spot: uint8 (2, 32, 32), small enough to be read in a
    model's files."""
    rows, columns = np.mgrid[-16:16, -16:16]
    head = np.where(np.hypot(rows, columns) < 13, 120, 0)
    spot = np.where(np.hypot(rows - 4, columns - 4) < 3, 100, 0)
    return np.stack([head, head + spot]).astype(np.uint8)


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
        with _failed_unless_ready(client, made.model_id), _scratch(client, made) as scratch:
            _requirements_are_installed()
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
            _keep(client, made, Path(scratch) / "model", folder)
            digest = digest_files(Path(scratch) / "model")
            client.set_logged_model_tags(made.model_id, {DIGEST: digest})
        client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return f"models:/{made.model_id}"


class Version(NamedTuple):
    """A registered version: a name, its number, and what is written of it."""

    name: str
    number: str
    run_id: str
    tags: dict[str, str]
    aliases: list[str]
    description: str
    model_uri: str  # the logged model that it is

    @property
    def uri(self) -> str:
        """Its address."""
        return f"models:/{self.name}/{self.number}"


def register(
    tracking_uri: str,
    model_uri: str,
    name: str,
    *,
    alias: str = "candidate",
    tags: Mapping[str, str],
    description: str,
) -> str:
    """Give a logged model a version of `name`, as `add_version` does, and the alias to it."""
    number = add_version(tracking_uri, model_uri, name, tags=tags, description=description)
    set_alias(tracking_uri, name, alias, number)
    return number


def add_version(
    tracking_uri: str, model_uri: str, name: str, *, tags: Mapping[str, str], description: str
) -> str:
    """Give a logged model the next version of `name`; one that has a version there keeps it."""
    client = connect(tracking_uri)
    with tracking_errors(f"Registering {model_uri} as {name}"):
        model = client.get_logged_model(model_uri.removeprefix("models:/"))
        digest = model.tags.get(DIGEST) or _stored_digest(tracking_uri, model.artifact_location)
        version = _version_of(client, name, model)
        if version is None:
            tags = {**tags, DIGEST: digest}
            version = _create_version(client, name, model, tags, description)
        elif DIGEST not in client.get_model_version(name, version).tags:
            client.set_model_version_tag(name, version, DIGEST, digest)
        return version


def set_alias(tracking_uri: str, name: str, alias: str, number: str) -> None:
    """Point an alias to a version that there is."""
    client = connect(tracking_uri)
    with tracking_errors(f"Setting {name}@{alias} to version {number}"):
        client.set_registered_model_alias(name, alias, number)


def annotate(
    tracking_uri: str, version: Version, *, tags: Mapping[str, str], description: str | None = None
) -> None:
    """Write tags, and a description if there is one, on a version."""
    client = connect(tracking_uri)
    with tracking_errors(f"Writing on {version.uri}"):
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.number, key, value)
        if description is not None:
            client.update_model_version(version.name, version.number, description)


def find_version(tracking_uri: str, uri: str) -> Version:
    """The version at `models:/<name>@<alias>` or `models:/<name>/<version>`."""
    client = connect(tracking_uri)
    with tracking_errors(f"Looking for {uri}"):
        return _as_version(_model_version(client, uri))


def aliased(tracking_uri: str, alias: str) -> list[str]:
    """The names of the registered models that have this alias, sorted."""
    client = connect(tracking_uri)
    with tracking_errors("Listing the registered models"):
        models = in_pages(client.search_registered_models)
        return sorted(model.name for model in models if alias in model.aliases)


def version_tags(tracking_uri: str, uri: str) -> dict[str, str]:
    """The tags of the version at `models:/<name>@<alias>` or `models:/<name>/<version>`."""
    return find_version(tracking_uri, uri).tags


def fetch_model(tracking_uri: str, uri: str, to: Path) -> Path:
    """Copy a model's files to a folder below `to`; files that are not those logged are refused.

    `uri` is `models:/<name>@<alias>`, `models:/<name>/<version>` or `models:/<id>`.
    """
    client = connect(tracking_uri)
    with tracking_errors(f"Loading {uri}"):
        location, model_id, digest = _resolve(client, uri)
        if digest is None:
            raise TrackingError(
                f"{uri} has no digest of its files, so that they cannot be checked: it was logged "
                "by something else, or before there were digests. `make study` registers its "
                "winner with one."
            )
        folder = fetch_model_files(client, location, model_id, to)
    if digest_files(folder) != digest:
        shutil.rmtree(folder)
        raise TrackingError(
            f"The files of {uri} are not those that were logged (their digest is another): they "
            "were damaged or tampered with. Restore them from a backup, or register another model."
        )
    return folder


def load_model(tracking_uri: str, uri: str) -> mlflow.pyfunc.PyFuncModel:
    """The model at an address that `fetch_model` takes; one with pickle in it is refused."""
    scratch = Path(mkdtemp(prefix="model-"))
    try:
        folder = fetch_model(tracking_uri, uri, scratch)
        with _pickle_refused():
            model = mlflow.pyfunc.load_model(str(folder))
    except Exception as error:  # a model's own code runs, and may raise anything
        shutil.rmtree(scratch)
        if isinstance(error, TrackingError):
            raise
        raise TrackingError(f"Loading {uri} failed: {first_line(error)}") from error
    except BaseException:
        shutil.rmtree(scratch)
        raise
    # what the model's code has not read yet must stay as long as the model does
    weakref.finalize(model, shutil.rmtree, scratch, ignore_errors=True)
    return model


def takes_images(model: Model | Path) -> bool:
    """Whether a model, or the one in a folder, is asked about images: a generator makes them."""
    metadata = model if isinstance(model, Model) else Model.load(str(model))
    return metadata.get_input_schema().is_tensor_spec()


def digest_files(folder: Path) -> str:
    """The sha256 over names and contents of all files in a folder, as 64 hex characters."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name == WRITTEN_BY_A_DOWNLOAD:
            continue
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _requirements_are_installed() -> None:
    """Spare MLflow from listing every file of every package, for seconds, before it warns of
    requirements that are not installed: these are the installed ones."""
    if getattr(requirements_utils, "_MODULES_TO_PACKAGES", {}) is None:
        requirements_utils._MODULES_TO_PACKAGES = {}


def _scratch(client: MlflowClient, made: LoggedModel) -> TemporaryDirectory:
    """A folder on the disk that the model will lie on, if that is here."""
    place_of_its_own = _own_folder(client, made)
    if place_of_its_own is None:
        return TemporaryDirectory()
    place_of_its_own.parent.mkdir(parents=True, exist_ok=True)
    return TemporaryDirectory(dir=place_of_its_own.parent, prefix=".")


def _keep(client: MlflowClient, made: LoggedModel, saved: Path, source: Path) -> None:
    """Put a saved model where models lie. What it has in common with `source` or with the model
    that was logged before lies on the disk once."""
    to = _own_folder(client, made)
    if to is None:
        client.log_model_artifacts(made.model_id, str(saved))
        return
    share(saved / "artifacts" / "model", source)
    before = client.search_logged_models(
        [made.experiment_id],
        f"name = '{made.name}'",
        max_results=2,  # the one that is being made is among them
        order_by=[{"field_name": "creation_time", "ascending": False}],
    )
    for earlier in before:
        if earlier.status == LoggedModelStatus.READY:
            share(saved, local_folder(earlier.artifact_location))
    place(saved, to)


def _own_folder(client: MlflowClient, made: LoggedModel) -> Path | None:
    return None if is_server(client.tracking_uri) else local_folder(made.artifact_location)


def _stored_digest(tracking_uri: str, artifact_location: str) -> str:
    with TemporaryDirectory() as scratch:
        folder = mlflow.artifacts.download_artifacts(
            artifact_location, dst_path=scratch, tracking_uri=tracking_uri
        )
        return digest_files(Path(folder))


def _resolve(client: MlflowClient, uri: str) -> tuple[str, str | None, str | None]:
    """Where a model's files lie, the id of the logged model that it is, and the digest that the
    files must have."""
    if re.fullmatch(r"models:/m-\w+", uri):
        model = client.get_logged_model(uri.removeprefix("models:/"))
        return model.artifact_location, model.model_id, model.tags.get(DIGEST)
    version = _as_version(_model_version(client, uri))
    logged = re.fullmatch(r"models:/(m-\w+)", version.model_uri)
    location = client.get_model_version_download_uri(version.name, version.number)
    return location, logged and logged[1], version.tags.get(DIGEST)


def _model_version(client: MlflowClient, uri: str) -> ModelVersion:
    named = re.fullmatch(r"models:/([^@/]+)([@/])([^@/]+)", uri)
    if named is None:
        raise TrackingError(
            f"MODEL must be models:/<name>@<alias> or models:/<name>/<version>, got {uri}."
        )
    name, mark, which = named.groups()
    if mark == "@":
        return client.get_model_version_by_alias(name, which)
    return client.get_model_version(name, which)


def _as_version(found: ModelVersion) -> Version:
    return Version(
        name=found.name,
        number=str(found.version),
        run_id=found.run_id,
        tags=dict(found.tags),
        aliases=list(found.aliases),
        description=found.description or "",
        model_uri=_logged_model_uri(found.source),
    )


def _logged_model_uri(source: str) -> str:
    """The logged model that lies there: a version does not keep its id."""
    held = re.search(r"/models/(m-\w+)/", f"{source}/")
    return f"models:/{held.group(1)}" if held else source


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
