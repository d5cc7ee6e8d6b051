"""The model of any trial, by the id of its run.

A trial keeps what is its own and links to the run with its network's weights; here the two are put
together again.
"""

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow_server import Tracking
from studies.record import HOLDER, OWN_FOLDER
from training.classifier_predictor import ClassifierPredictor
from training.detector import WEIGHTS
from training.predictor import PREDICTOR, Predictor

KINDS = {"detector": Predictor, "classifier": ClassifierPredictor}


def load_trial_model(tracking: Tracking, run_id: str) -> Predictor | ClassifierPredictor:
    """The predictor of a complete trial; TrackingError when the run has none."""
    with TemporaryDirectory() as scratch:
        folder = tracking.download(run_id, OWN_FOLDER, Path(scratch))
        description = json.loads((folder / PREDICTOR).read_text())
        kind = next(kind for kind in KINDS if kind in description)
        holder = tracking.tags(run_id).get(HOLDER.format(kind), run_id)
        shutil.copy(tracking.download(holder, f"{kind}/{WEIGHTS}", Path(scratch)), folder)
        return KINDS[kind].load(folder)
