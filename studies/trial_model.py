"""The model of any trial, by the id of its run.

A trial keeps its own head and links to the run with its network's weights; here the two are put
together again.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow_server import Tracking
from studies.record import HOLDER, OWN_FOLDER
from training.detector import WEIGHTS
from training.predictor import Predictor

NETWORK = "detector"


def load_trial_model(tracking: Tracking, run_id: str) -> Predictor:
    """The predictor of a complete trial; TrackingError when the run has none."""
    holder = tracking.tags(run_id).get(HOLDER.format(NETWORK), run_id)
    with TemporaryDirectory() as scratch:
        folder = tracking.download(run_id, OWN_FOLDER, Path(scratch))
        weights = tracking.download(holder, f"{NETWORK}/{WEIGHTS}", Path(scratch))
        shutil.copy(weights, folder)
        return Predictor.load(folder)
