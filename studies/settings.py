"""How a study is run: what the command line and the environment say, checked once."""

from dataclasses import dataclass
from pathlib import Path

from mlflow_server import local_artifacts
from studies.study import Study, StudyError
from training.data import Dataset
from training.detector import detectors

DEFAULT_DETECTOR = "brain_cvae"
SEARCHED_DETECTOR = "search"


@dataclass(frozen=True)
class Settings:
    """The variables of `make study`; `root` is the folder that everything is written below."""

    root: Path
    storage_url: str
    tracking_uri: str
    trials: int | None = None
    timeout: float | None = None
    seed: int = 0
    data: str = "auto"
    split: str = "grouped"
    preprocess: str = "head"
    detector: str = DEFAULT_DETECTOR
    device: str = "auto"
    label: str = ""

    @property
    def artifact_root(self) -> Path:
        """Where MLflow keeps files when it has no server of its own."""
        return local_artifacts(self.root)


def full_name(study: Study, dataset: Dataset, settings: Settings) -> str:
    """The study's name, and in brackets whatever is not the default.

    Results on other data, another split or another seed are other results: they get a study, an
    experiment and a registered model of their own.
    """
    marks = [
        dataset.name if dataset.name != "br35h" else "",
        "paper split" if settings.split == "paper" else "",
        "paper preprocessing" if settings.preprocess == "paper" else "",
        _detector_mark(settings.detector),
        f"seed {settings.seed}" if settings.seed else "",
        settings.label,
    ]
    marks = [mark for mark in marks if mark]
    return f"{study.name} ({', '.join(marks)})" if marks else study.name


def _detector_mark(detector: str) -> str:
    if detector == SEARCHED_DETECTOR:
        return "searched detector"
    return "" if detector == DEFAULT_DETECTOR else f"{detector} detector"


def slug(name: str) -> str:
    """A full name as a folder's and a model's name: `giaem (phantom)` is `giaem-phantom`."""
    kept = "".join(letter if letter.isalnum() or letter == "_" else "-" for letter in name)
    return "-".join(part for part in kept.split("-") if part)


def check_settings(study: Study, settings: Settings) -> None:
    """Refuse combinations that have no meaning."""
    searches_detectors = "detector" in study.space or study.name in detectors()
    if settings.detector != DEFAULT_DETECTOR and searches_detectors:
        raise StudyError(
            f"DETECTOR={settings.detector} has no meaning for the study '{study.name}', which "
            "chooses its detector itself. Leave DETECTOR out."
        )
