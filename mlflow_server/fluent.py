"""MLflow as a script of one's own calls it: a run is open, and what is logged goes to it.

What `make bench` holds tracking.py against; nothing else uses it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlflow


@contextmanager
def open_parent(uri: str, name: str) -> Iterator[None]:
    """An experiment with a run in it, below which trials are opened."""
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(name)
    with mlflow.start_run(run_name=name):
        yield


@contextmanager
def open_child(name: str) -> Iterator[None]:
    """A trial's run."""
    with mlflow.start_run(run_name=name, nested=True):
        yield


def log(params: dict[str, object], metrics: dict[str, float]) -> None:
    """To the run that is open."""
    mlflow.log_params(params)
    mlflow.log_metrics(metrics)
