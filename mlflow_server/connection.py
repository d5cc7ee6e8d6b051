"""One MLflow client for a tracking address, and one kind of error for all that can go wrong there.

Owns which addresses are taken, how long a dead server is waited for, and what a database of
another version is answered with. Does not know what is logged.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from urllib.parse import urlsplit

import mlflow
import requests
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from mlflow.telemetry import set_telemetry_client
from mlflow.utils.credentials import read_mlflow_creds
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
SERVER_ANSWERS_WITHIN = 3.0  # seconds

# For this process only, and never over what the user has set. MLflow's own defaults retry a dead
# server for minutes, print a line for each run that ends and draw a bar for each file.
CLIENT_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a run that is made again by itself is there twice
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class TrackingError(RuntimeError):
    """MLflow could not do what was asked: one sentence, with the cure."""


class TrackingRefused(TrackingError):
    """A server that answers, and will not: waiting changes nothing."""


@contextmanager
def tracking_errors(doing: str) -> Iterator[None]:
    """Turn what MLflow and the file system raise into a TrackingError that says what was done."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if why := _why_refused(error):
            raise TrackingRefused(f"{doing} was refused: {why}") from error
        raise TrackingError(f"{doing} failed: {first_line(error)}") from error


def _why_refused(error: Exception) -> str | None:
    """What a server's 401 or 403 means for the user; None for all other errors."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
    name = read_mlflow_creds().username
    if status == 401:
        known = f"the server knows no {name} with this password" if name else "it asks who it is"
        return f"{known}. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    if status != 403:
        return None
    if "Host header" in str(error):
        return "the server does not answer to this name. Start it with ALLOWED_HOSTS=<name>."
    said = str(error).partition("PERMISSION_DENIED: ")[2]  # by the server's own rules
    return said or (
        f"{name or 'this user'} may not do that. Who owns it, or an admin, can allow it: "
        f"`make grant NAME={name or '<name>'} PERMISSION=EDIT EXPERIMENT=<name>` (or MODEL=<name>)."
    )


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def local_uri(root: Path) -> str:
    """The address that needs no server: an SQLite file below `root`."""
    return f"sqlite:///{root.resolve() / 'mlflow' / 'mlflow.db'}"


def local_artifacts(root: Path) -> Path:
    """Where the files of runs lie that are logged to `local_uri(root)`."""
    return root.resolve() / "mlflow" / "artifacts"


def is_server(uri: str) -> bool:
    return urlsplit(uri).scheme in ("http", "https")


def server_version(uri: str) -> str:
    """The version of MLflow that answers; of a database the installed one."""
    if not is_server(uri):
        return mlflow.__version__
    with tracking_errors(f"Asking {uri} for its version"):
        answer = requests.get(f"{uri.rstrip('/')}/version", timeout=SERVER_ANSWERS_WITHIN)
        return answer.text.strip()


def connect(uri: str) -> MlflowClient:
    """A client for a server that answers, or for a database that has the right tables."""
    if is_server(uri):
        _quiet_settings()
        return _connect_to_server(uri.rstrip("/"))
    if urlsplit(uri).scheme.partition("+")[0] in DATABASES:
        _quiet_settings()
        return _connect_to_database(uri)
    raise TrackingError(
        f"MLFLOW_TRACKING_URI must begin with http://, https:// or sqlite:/// (or another of "
        f"{', '.join(DATABASES[1:])}), got {uri!r}."
    )


def in_pages(search: Callable[..., PagedList], *asked: object, **how: object) -> Iterator:
    """All that one of a client's searches finds, page after page."""
    token = None
    while True:
        page = search(*asked, page_token=token, **how)
        yield from page
        token = page.token
        if not token:
            return


def database_file(uri: str) -> Path | None:
    """The file of an SQLite address; None for all others."""
    if urlsplit(uri).scheme.partition("+")[0] != "sqlite":
        return None
    database = make_url(uri).database
    return Path(database) if database else None


def _quiet_settings() -> None:
    for name, value in CLIENT_SETTINGS.items():
        os.environ.setdefault(name, value)
    set_telemetry_client()  # reads the environment again: off
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def _connect_to_server(uri: str) -> MlflowClient:
    cure = "start it with `make ui`, or unset MLFLOW_TRACKING_URI"
    try:
        answer = requests.get(f"{uri}/health", timeout=SERVER_ANSWERS_WITHIN)
    except requests.RequestException as error:
        raise TrackingError(f"No MLflow server answers at {uri}: {cure}.") from error
    if not (answer.ok and answer.text.strip() == "OK"):
        raise TrackingError(
            f"What answers at {uri} is not an MLflow server (GET /health gave "
            f"{answer.status_code}): {cure}."
        )
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    with tracking_errors(f"Reading experiments from {uri}"):
        client.search_experiments(max_results=1)
    return client


def _connect_to_database(uri: str) -> MlflowClient:
    file = database_file(uri)
    try:
        with _one_process_makes_the_tables(file):
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        _log_ahead(file)
        return client
    except Exception as error:  # alembic, sqlalchemy, sqlite and MLflow each raise their own
        if "schema" in str(error) or "revision" in str(error):
            raise TrackingError(
                f"The tracking database {uri} was made by another version of MLflow: make a copy "
                f"and run `mlflow db upgrade {uri}`, or move the file away."
            ) from error
        raise TrackingError(
            f"The tracking database {uri} cannot be opened ({first_line(error)}): "
            f"move it away, or set MLFLOW_TRACKING_URI to another place."
        ) from error


def _log_ahead(file: Path | None) -> None:
    """Have SQLite keep a log ahead of its file: a commit waits for the disk once, and who reads
    does not wait for who writes. A database in use, or on a disk without it, stays as it is."""
    if file is not None:
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")


def _one_process_makes_the_tables(file: Path | None):
    """Two processes that meet at a new SQLite file would both create its tables, and one dies."""
    if file is None:
        return nullcontext()
    file.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{file}.lock")
