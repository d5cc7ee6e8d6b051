"""A small model on phantom slices, registered as `make study` would: what tests ask."""

from pathlib import Path

import numpy as np
import torch

import models
import training
from mlflow_server import Tracking, local_artifacts, local_uri
from mlflow_server.registry import log_model, register, tells
from models.heads import MapScore
from training.classifier import ClassifierSpec
from training.classifier_predictor import Calibration, ClassifierPredictor
from training.data import phantom
from training.detector import DetectorSpec
from training.error_maps import map_images
from training.predictor import Predictor, framed

CPU = torch.device("cpu")
TINY = {"image_size": 32, "latent_dim": 8, "scaling": "healthy"}


def tiny_detector() -> Predictor:
    """A network that was never trained, and a threshold that both answers lie around."""
    spec = DetectorSpec("brain_cvae", TINY)
    mapper = spec.build().eval()
    maps = map_images(mapper, framed(some_slices(), "head"), device=CPU)
    threshold = float(np.median(MapScore("mean", 0.0).fit(maps).decision_function(maps)))
    return Predictor("head", spec, mapper, MapScore("mean", threshold).fit(maps), CPU)


def tiny_classifier() -> ClassifierPredictor:
    """The same of the other kind."""
    spec = ClassifierSpec({"variant": "small", "image_size": 32, "width": 4})
    return ClassifierPredictor("head", spec, spec.build().eval(), Calibration(2.0, 0.0), 0.5, CPU)


def some_slices(n: int = 12) -> list[np.ndarray]:
    """Phantom slices as they come, of several sizes."""
    rng = np.random.default_rng(0)
    return [phantom.draw(rng, lesion=bool(i % 2)).image for i in range(n)]


OURS = [Path(package.__file__).parent for package in (models, training)]


def write_registered(
    root: Path, predictor: Predictor, name: str, code_paths: list[Path] = OURS, **changed
) -> str:
    """Log and register the predictor below `root`; its address."""
    uri = local_uri(root)
    tracking = Tracking(uri, local_artifacts(root))
    experiment = tracking.experiments.open(name, note="", tags={})
    run_id = tracking.open_study(experiment, name, params={}, tags={}, datasets=[])
    predictor.save(root / "saved" / name)
    module = type(predictor).__module__
    address = log_model(
        uri,
        run_id,
        root / "saved" / name,
        name=name,
        **{"flavour": tells(), "loader": f"{module}:load", **changed},
        code_paths=code_paths,
        pip_requirements=["numpy"],
        metadata={},
    )
    register(uri, address, name, tags={}, description="")
    return f"models:/{name}@candidate"
