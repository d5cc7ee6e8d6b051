"""All that speaks to MLflow. The only package here that imports it; it imports none of ours."""

from mlflow_server.connection import TrackingError, TrackingRefused, local_artifacts, local_uri
from mlflow_server.entities import DatasetUse, TrialRun
from mlflow_server.tracking import KnownRun, Tracking

__all__ = [
    "DatasetUse",
    "KnownRun",
    "Tracking",
    "TrackingError",
    "TrackingRefused",
    "TrialRun",
    "local_artifacts",
    "local_uri",
]
