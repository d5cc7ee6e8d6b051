"""Experiments: one for each study's name, and the views of their runs that the UI shows."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from mlflow_server.connection import TrackingRefused, in_pages, is_server, tracking_errors
from mlflow_server.entities import quoted

VIEW_TAG = "mlflow.sharedViewState."  # + key: where the UI keeps a view that was shared


class Experiments:
    """Those at one address. A server decides itself where their files go."""

    def __init__(self, client: MlflowClient, uri: str, artifact_root: Path):
        self._client, self._uri = client, uri
        self._artifact_root = None if is_server(uri) else Path(artifact_root).resolve()

    def open(self, name: str, *, note: str, tags: Mapping[str, str]) -> str:
        """The experiment's id. Made once; one that was deleted in the UI is restored."""
        with tracking_errors(f"Opening the experiment {name!r}"):
            found = self._client.get_experiment_by_name(name)
            if found is None:
                return self._create(name, note=note, tags=tags)
            self._check_reach(name, found.artifact_location)
            if found.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(found.experiment_id)
            return found.experiment_id

    def describe(self, experiment_id: str, note: str) -> None:
        """Put a note, as Markdown, above the table of an experiment's runs."""
        with tracking_errors(f"Describing experiment {experiment_id}"):
            self._client.set_experiment_tag(experiment_id, MLFLOW_RUN_NOTE, note)

    def _check_reach(self, name: str, location: str) -> None:
        """Files go where their experiment lies, and MLflow would write those of a folder on the
        server's machine into one of that name here, and not find the others at all."""
        over_server = urlsplit(location).scheme == "mlflow-artifacts"
        if is_server(self._uri) and not over_server:
            raise TrackingRefused(
                f"The study {name!r} was begun beside the server, and keeps its files in a folder "
                f"there: run it there without MLFLOW_TRACKING_URI, or give yours a LABEL."
            )
        if over_server and not is_server(self._uri):
            raise TrackingRefused(
                f"The study {name!r} was begun over a server, which keeps its files: set "
                f"MLFLOW_TRACKING_URI to that server's address, or give yours a LABEL."
            )

    def ids(self) -> dict[str, str]:
        """The ids of all experiments by name, deleted ones left out."""
        with tracking_errors("Listing the experiments"):
            return {
                found.name: found.experiment_id
                for found in in_pages(self._client.search_experiments)
            }

    def _create(self, name: str, *, note: str, tags: Mapping[str, str]) -> str:
        folder = None
        if self._artifact_root is not None:
            folder = (self._artifact_root / re.sub(r"[^\w.-]+", "_", name)).as_uri()
        kind = {"mlflow.experimentKind": "custom_model_development"}  # opens on the runs table
        try:
            return self._client.create_experiment(
                name, artifact_location=folder, tags={**kind, MLFLOW_RUN_NOTE: note, **tags}
            )
        except MlflowException:
            other = self._client.get_experiment_by_name(name)  # another worker was faster
            if other is None:
                raise
            return other.experiment_id

    def share_view(
        self,
        experiment_id: str,
        study: str,
        *,
        metrics: Sequence[str],
        direction: Literal["maximize", "minimize"],
        params: Sequence[str],
        tags: Mapping[str, str],
    ) -> None:
        """Keep a view of the runs table: a study's trials with these tags and columns, best first.

        `direction` is that of the first metric; `runs_url` opens it by `view_key`.
        """
        wanted = "".join(f" AND tags.{name} = {quoted(value)}" for name, value in tags.items())
        view = {
            "searchFilter": f"tags.study = {quoted(study)} AND tags.trial IS NOT NULL{wanted}",
            "orderByKey": f"metrics.`{metrics[0]}`",
            "orderByAsc": direction == "minimize",
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [f"metrics.`{name}`" for name in metrics]
            + [f"params.`{name}`" for name in params],
        }
        with tracking_errors(f"Sharing the view of {study}"):
            tag = VIEW_TAG + view_key(study)
            self._client.set_experiment_tag(experiment_id, tag, json.dumps(view))


def view_key(study: str) -> str:
    """What a study's view of the runs table is called in addresses."""
    return re.sub(r"\W+", "_", study)
