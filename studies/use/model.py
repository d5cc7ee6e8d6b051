"""Which registered model answers, and that it can.

Owns what is said where there is no such model. Knows nothing of images and answers.
"""

from dataclasses import dataclass
from pathlib import Path

import models
import training
from mlflow_server import TrackingError
from mlflow_server.registry import load_model, takes_images
from studies.settings import Settings
from studies.study import StudyError
from training.classifier_predictor import ClassifierPredictor
from training.predictor import Predictor


@dataclass(frozen=True)
class OpenModel:
    """A model that has been loaded, and what there is to say about that."""

    uri: str
    predictor: Predictor | ClassifierPredictor
    remark: str  # "" where there is none


def check_address(uri: str) -> str:
    """The address, if it is one of the registry's: no path, from which anything could be loaded."""
    if not uri.startswith("models:/"):
        raise StudyError(
            f"MODEL must be models:/<name>@<alias>, models:/<name>/<version> or models:/<id>, got "
            f"'{uri}'."
        )
    return uri


def open_model(uri: str, settings: Settings) -> OpenModel:
    """Load a detector or a classifier; StudyError with the cure where that cannot be."""
    check_address(uri)
    try:
        loaded = load_model(settings.tracking_uri, uri)
    except TrackingError as error:
        raise unknown(error) from error
    if not takes_images(loaded.metadata):
        raise StudyError(f"{uri} makes images: give MODEL= a detector or a classifier.")
    held = loaded.unwrap_python_model()
    if not hasattr(held.model, "explain"):
        raise StudyError(
            f"{uri} was registered with code that cannot show what an answer rests on: search "
            "again with `make study`, which registers its winner."
        )
    return OpenModel(uri, held.model, _other_code(uri, getattr(held, "folder", None)))


def unknown(error: TrackingError) -> StudyError:
    """What to do where a model is not found."""
    return StudyError(
        f"{str(error).rstrip('.')}. `make promote STUDY=<study>` makes a study's winner the "
        "champion; MODEL=models:/global_kmeans@candidate asks that of a study."
    )


def _other_code(uri: str, folder: Path | None) -> str:
    """A sentence where the code that came with a model is not that which runs here."""
    parents = folder.parents if folder is not None else ()
    shipped = next((parent / "code" for parent in parents if (parent / "code").is_dir()), None)
    if shipped is None:
        return ""
    for package in (models, training):
        here = Path(package.__file__).parent
        if _sources(here) != _sources(shipped / here.name):
            return (
                f"{uri} was registered with other code than is here: these answers come from the "
                "code here, those of `make serve` from the model's own."
            )
    return ""


def _sources(package: Path) -> dict[str, bytes]:
    return {str(path.relative_to(package)): path.read_bytes() for path in package.rglob("*.py")}
