"""The tracking server, for one's own machine or for a team: started, waited for, stopped.

Owns the server's command and the addresses of its pages. Does not know which of them are worth
opening: the caller gives the links.
"""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote

import requests

from mlflow_server.connection import TrackingError, connect, is_server
from mlflow_server.process import is_taken, server_process
from mlflow_server.team import Door, without_login

# Without the first, a runner with six consumers takes 2 GB more.
SERVER_SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}

NOT_GENAI = "workflowType=machine_learning"  # without it the UI shows its pages for agents

Links = Callable[[str], Iterable[str]]  # the server's address -> lines to print below it


def runs_url(base: str, experiment_id: str, view: str | None = None) -> str:
    """The table of an experiment's runs, in the view that `Tracking.share_view` has kept."""
    shared = f"&viewStateShareKey={quote(view, safe='')}" if view else ""
    return f"{base}/#/experiments/{experiment_id}/runs?{NOT_GENAI}{shared}"


def run_url(base: str, experiment_id: str, run_id: str) -> str:
    """One run's page: the note, parameters, metrics, artifacts."""
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}?{NOT_GENAI}"


def artifact_url(base: str, experiment_id: str, run_id: str, path: str) -> str:
    """One of a run's files, opened on its page."""
    return f"{base}/#/experiments/{experiment_id}/runs/{run_id}/artifacts/{path}?{NOT_GENAI}"


def compare_url(base: str, run_ids: Iterable[str], experiment_ids: Iterable[str]) -> str:
    """The parallel-coordinates plot of these runs; the UI grows slow above about 100.

    It opens with three of the parameters that differ and the first metric that all runs have, in
    the order of logging: take finished runs only, and log the objective first.
    """
    runs, experiments = (
        quote(json.dumps(list(ids), separators=(",", ":")), safe="")
        for ids in (run_ids, experiment_ids)
    )
    return f"{base}/#/compare-runs?runs={runs}&experiments={experiments}&{NOT_GENAI}"


def serve(
    tracking_uri: str,
    artifact_root: Path,
    *,
    links: Links,
    port: int = 5000,
    say: Callable[[str], None] = print,
) -> None:
    """Run the server over the database until Ctrl-C, for this machine alone.

    What runs elsewhere, or already, is only linked to.
    """
    door = without_login("127.0.0.1", port)
    client = connect(tracking_uri)
    if is_server(tracking_uri):
        say(f"MLFLOW_TRACKING_URI is a server already: {tracking_uri}")
        return _say_links(tracking_uri, links, say)
    if is_taken(door.host, port) and _born(door.base) == client.get_experiment("0").creation_time:
        say(f"MLflow runs already: {door.base}")
        return _say_links(door.base, links, say)
    return _run(tracking_uri, artifact_root, door, links, say)


def serve_team(
    tracking_uri: str,
    artifact_root: Path,
    *,
    links: Links,
    door: Door,
    say: Callable[[str], None] = print,
) -> None:
    """Run the server over the database until Ctrl-C, for whoever the door lets in."""
    if is_server(tracking_uri):
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is a server already ({tracking_uri}): unset it here, or set it "
            f"to the database that the server is to keep."
        )
    connect(tracking_uri)
    _run(tracking_uri, artifact_root, door, links, say)


def _run(
    tracking_uri: str, artifact_root: Path, door: Door, links: Links, say: Callable[[str], None]
) -> None:
    if is_taken(door.host, door.port):
        raise TrackingError(
            f"Port {door.port} is in use by another program: try `PORT={door.port + 1}`."
        )
    log = Path(artifact_root).resolve().parent / "server.log"
    say(f"MLflow starts on {door.base} (10 to 20 seconds; its log is {log})")
    settings = _settings(tracking_uri, door)
    command = _command(artifact_root, door)
    with server_process(command, "The MLflow server", log, settings=settings) as server:
        server.wait_until_ready(lambda: _is_healthy(door.base))
        say(f"MLflow is ready: {door.base} (Ctrl-C stops it)")
        _say_links(door.base, links, say)
        server.wait_for_ctrl_c()


def _say_links(base: str, links: Links, say: Callable[[str], None]) -> None:
    for line in links(base.rstrip("/")):
        say(line)


def _settings(tracking_uri: str, door: Door) -> dict[str, str]:
    # The database's address may hold a password, and every user of the machine sees what programs
    # are called with.
    return {**SERVER_SETTINGS, "MLFLOW_BACKEND_STORE_URI": tracking_uri, **door.environment}


def _command(artifact_root: Path, door: Door) -> list[str]:
    # Runs that were logged straight to the database have files at file:// addresses, which the
    # server reads as they are; those that are logged over HTTP go through it to the same folder.
    return [
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--serve-artifacts", "--artifacts-destination", Path(artifact_root).resolve().as_uri()),
        *door.command(),
    ]


def _is_healthy(base: str) -> bool:
    try:
        return requests.get(f"{base}/health", timeout=3).ok
    except requests.RequestException:
        return False


def _born(base: str) -> int | None:
    """When the database behind a server was made, which tells one from another; None: no MLflow."""
    try:
        answer = requests.get(
            f"{base}/api/2.0/mlflow/experiments/get", params={"experiment_id": "0"}, timeout=3
        )
        return int(answer.json()["experiment"]["creation_time"])
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None
