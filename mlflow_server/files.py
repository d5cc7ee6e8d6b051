"""The files of runs and models, wherever the one who logged them let them lie.

MLflow's client reads a folder of the server's machine as one of this machine. What was logged
beside the server, straight to its database, is asked of the server itself instead. On this machine
a file that is the same in several places lies on the disk once: nothing here is changed in place.
"""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mlflow_server.connection import is_server

BLOCK = 2**20  # bytes that are read at a time


class Source(NamedTuple):
    """Where a server lists and gives the files of one run or model."""

    listing: str
    folder: str  # the listing's parameter
    giving: str
    file: str  # the giving's parameter
    of: dict[str, str]  # what both are asked with


def local_folder(address: str) -> Path | None:
    """The folder at a file:// address; None of all others."""
    if urlsplit(address).scheme not in ("file", ""):
        return None
    return Path(local_file_uri_to_path(address))


def place(folder: Path, to: Path) -> None:
    """Put a folder's files below `to`, over those that are there: links where the disk is one."""
    shutil.copytree(folder, to, copy_function=link, dirs_exist_ok=True)


def share(folder: Path, other: Path) -> None:
    """Have the files of a folder that `other` has too, under the same name, take no room."""
    for path in (path for path in folder.rglob("*") if path.is_file()):
        twin = other / path.relative_to(folder)
        if twin.is_file() and _is_same(path, twin):
            link(twin, path)


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files hold the same; as `filecmp` does it, with a hundredth of its reads."""
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb", buffering=0) as first, other.open("rb", buffering=0) as second:
        while block := first.read(BLOCK):
            if block != second.read(BLOCK):
                return False
    return True


def link(source: str | Path, target: str | Path) -> None:
    """Have `target` be the file `source`, or a copy of it on another disk or where there are no
    links; a file that is there is replaced, never written into."""
    unfinished = Path(f"{target}.tmp")
    unfinished.unlink(missing_ok=True)
    try:
        os.link(Path(source).resolve() if Path(source).is_symlink() else source, unfinished)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, unfinished)
    unfinished.replace(target)
    unfinished.unlink(missing_ok=True)  # a link to what is there already is not renamed


def fetch_run_files(client: MlflowClient, run_id: str, path: str, to: Path) -> Path:
    """Copy a run's file or folder to below `to`; the path of the copy."""
    location = client.get_run(run_id).info.artifact_uri
    if not _is_folder_there(client, location):
        return Path(client.download_artifacts(run_id, path, dst_path=str(to)))
    source = Source(
        "/api/2.0/mlflow/artifacts/list", "path", "/get-artifact", "path", {"run_id": run_id}
    )
    _copy(client.tracking_uri, source, path, to)
    return to / path


def fetch_model_files(client: MlflowClient, location: str, model_id: str | None, to: Path) -> Path:
    """Copy a model's files to a folder below `to`, and return that.

    They are those of the logged model `model_id`, at `location`: an address like models:/... MLflow
    would look up where the process points to.
    """
    if not _is_folder_there(client, location):
        return Path(
            mlflow.artifacts.download_artifacts(
                location, dst_path=str(to), tracking_uri=client.tracking_uri
            )
        )
    source = Source(
        f"/api/2.0/mlflow/logged-models/{model_id}/artifacts/directories",
        "artifact_directory_path",
        f"/ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files",
        "artifact_file_path",
        {},
    )
    folder = to / "model"
    folder.mkdir(parents=True)
    _copy(client.tracking_uri, source, "", folder)
    return folder


def _is_folder_there(client: MlflowClient, location: str) -> bool:
    return is_server(client.tracking_uri) and urlsplit(location).scheme == "file"


def _copy(uri: str, source: Source, path: str, to: Path) -> None:
    """A file, or a folder with all that is in it."""
    within = {source.folder: path} if path else {}
    held = _ask(uri, source.listing, source.of | within).json().get("files", [])
    if not held:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise MlflowException(f"The server names a file outside its folder: {path!r}.")
        target = to / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_ask(uri, source.giving, source.of | {source.file: path}).content)
    for file in held:
        _copy(uri, source, file["path"], to)


def _ask(uri: str, endpoint: str, asked: dict[str, str]):
    answer = http_request(get_default_host_creds(uri), endpoint, "GET", params=asked)
    if answer.status_code != 200:
        verify_rest_response(answer, endpoint)
    return answer
