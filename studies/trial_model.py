"""The model of any trial, by the id of its run.

A trial keeps what is its own and links to the runs with its networks' weights; here they are put
together again.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow_server import Tracking, TrackingError
from mlflow_server.tracking import CLEANED_TAG
from studies.record import HOLDER, OWN_FOLDER
from training.classifier_predictor import ClassifierPredictor
from training.generator_bundle import CLASSES, GeneratorBundle, weights_file
from training.kept_fit import WEIGHTS
from training.predictor import PREDICTOR, Predictor

KINDS = {
    "detector": Predictor,
    "classifier": ClassifierPredictor,
    "generator": GeneratorBundle,
}


def load_trial_model(
    tracking: Tracking, run_id: str
) -> Predictor | ClassifierPredictor | GeneratorBundle:
    """What a complete trial made; TrackingError when the run has none."""
    tags = tracking.tags(run_id)
    refuse_cleaned(run_id, tags)
    with TemporaryDirectory() as scratch:
        folder = tracking.download(run_id, OWN_FOLDER, Path(scratch))
        description = json.loads((folder / PREDICTOR).read_text())
        kind = next(kind for kind in KINDS if kind in description)
        for network, file in networks(kind, description).items():
            holder = tags.get(HOLDER.format(network), run_id)
            weights = tracking.download(holder, f"{network}/{WEIGHTS}", Path(scratch))
            shutil.copy(weights, folder / file)
        return KINDS[kind].load(folder)


def refuse_cleaned(run_id: str, tags: Mapping[str, str]) -> None:
    """Say why a run has no files, where `make gc` has removed them."""
    if CLEANED_TAG in tags:
        raise TrackingError(
            f"The files of run {run_id} were removed on {tags[CLEANED_TAG]} by `make gc`, which "
            "keeps the best trials of a study; its parameters and metrics are still there. Take "
            "another trial, or `make restore` a backup from before that day."
        )


def networks(kind: str, description: dict) -> dict[str, str]:
    """The networks whose weights runs hold, and the file in which each is looked for."""
    if kind != "generator":
        return {kind: WEIGHTS}
    return {CLASSES[label]: weights_file(label) for label in description["labels"]}
