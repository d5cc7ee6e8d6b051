"""All that speaks to MLflow. The only package here that imports it; it imports none of ours."""

from mlflow_server.connection import TrackingError, TrackingRefused, local_artifacts, local_uri
from mlflow_server.tracking import DatasetUse, KnownRun, Tracking, TrialRun

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
