"""MLflow's scoring server for one model on one's own machine: `make serve`.

Owns which files are served (a copy that was checked), how the server is started, and when it is
ready. Does not know what the model is for: the caller gives the note and the links.
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import requests

from mlflow_server.connection import TrackingError
from mlflow_server.process import is_taken, server_process
from mlflow_server.registry import NO_PICKLE, fetch_model, takes_images
from mlflow_server.scoring_app import MODEL, NAME, NOTE

APP = "mlflow_server.scoring_app:make_app"

# glibc hands large blocks back to the system after each answer; keeping them saves page faults.
# It keeps none above 64 MB for threads, in which answers are made, unless all share one arena.
SETTINGS = {
    NO_PICKLE: "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "600",  # seconds; a batch of thousands takes one
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_TOP_PAD_": "67108864",
    "MALLOC_ARENA_MAX": "1",
}


def serve_model(
    tracking_uri: str,
    model_uri: str,
    *,
    note: str,
    log: Path,
    links: Callable[[str], Iterable[str]],
    host: str = "127.0.0.1",
    port: int = 5001,
    say: Callable[[str], None] = print,
) -> None:
    """Answer with the model over HTTP until Ctrl-C; `note` goes with every answer.

    The files are fetched once and checked, and what is served is that copy.
    """
    if is_taken(host, port):
        raise TrackingError(f"Port {port} is in use by another program: try `PORT={port + 1}`.")
    base = f"http://{host}:{port}"
    with TemporaryDirectory(prefix="served-") as scratch:
        folder = fetch_model(tracking_uri, model_uri, Path(scratch))
        if not takes_images(folder):
            raise TrackingError(
                f"{model_uri} does not tell tumours in images (it makes images): give MODEL= a "
                "detector or a classifier."
            )
        settings = SETTINGS | {MODEL: str(folder), NAME: model_uri, NOTE: note}
        say(f"{model_uri} starts on {base} (10 to 20 seconds; its log is {log})")
        command = _command(host, port)
        with server_process(command, "The scoring server", log, settings=settings) as server:
            server.wait_until_ready(lambda: _answers(base))
            say(f"{model_uri} is ready: {base} (Ctrl-C stops it)")
            for line in links(base):
                say(line)
            server.wait_for_ctrl_c()


def _command(host: str, port: int) -> list[str]:
    """As `mlflow models serve` does it: one process, which is one worker."""
    uvicorn = (sys.executable, "-m", "uvicorn", "--factory", APP)
    return [*uvicorn, "--host", host, "--port", str(port), "--log-level", "info"]


def _answers(base: str) -> bool:
    """MLflow's own question, which it answers once the model is loaded."""
    try:
        return requests.get(f"{base}/ping", timeout=3).ok
    except requests.RequestException:
        return False
