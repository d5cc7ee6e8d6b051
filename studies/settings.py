"""How a study is run: what the command line and the environment say, checked once."""

from dataclasses import dataclass
from pathlib import Path

from mlflow_server import local_artifacts
from studies.study import Study, StudyError
from training.data import Dataset
from training.detector import detectors
from training.generator import generators

DEFAULT_DETECTOR = "brain_cvae"
SEARCHED_DETECTOR = "search"
DEFAULT_GENERATOR = "vae"
CHAMPIONS = "tumor-detector"  # the registered model that gathers the champions of all studies
CHAMPION = f"models:/{CHAMPIONS}@champion"
CACHE_GB = 20.0  # our choice: the features of three data sets, and a thousand networks
REAL = "real"
TRAIN_ON = (REAL, "synthetic", "mixed")


@dataclass(frozen=True)
class Settings:
    """The variables of `make study`; `root` is the folder that everything is written below.

    `generator` is a generator's name, or a folder that `make generate` wrote.
    """

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
    train_on: str = REAL
    generator: str = DEFAULT_GENERATOR
    cache_gb: float = CACHE_GB
    workers: int = 1
    engine: str = "local"  # or "ray", or "elsewhere": who starts the workers
    ray_address: str | None = None
    gpu_share: float | None = None  # of its GPU's memory, for each worker

    @property
    def artifact_root(self) -> Path:
        """Where MLflow keeps files when it has no server of its own."""
        return local_artifacts(self.root)


def full_name(study: Study, dataset: Dataset, settings: Settings) -> str:
    """The study's name, and in brackets whatever is not the default.

    Results on other data, another split or another seed are other results: they get a study, an
    experiment and a registered model of their own.
    """
    return _marked(
        study.name,
        *_data_marks(dataset, settings),
        _detector_mark(settings.detector),
        _training_mark(settings),
        _seed_mark(settings),
        settings.label,
    )


def generator_model(dataset: Dataset, settings: Settings) -> str:
    """Where a generator's own study on the same data and split registers the best one."""
    marks = *_data_marks(dataset, settings), _seed_mark(settings)
    return f"models:/{slug(_marked(settings.generator, *marks))}@candidate"


def synthetic_folder(dataset: Dataset, settings: Settings, scheme: str) -> Path:
    """Where the synthetic set lies that studies of this scheme train on."""
    if settings.generator not in generators():
        return Path(settings.generator)
    of_detectors = "detector" if scheme == "detector" else ""
    marks = *_data_marks(dataset, settings), of_detectors, _seed_mark(settings)
    return settings.root / "synthetic" / slug(_marked(settings.generator, *marks))


def generate_command(settings: Settings, scheme: str) -> str:
    """The command that makes that set."""
    words = [f"GENERATOR={settings.generator}", f"FOR={scheme}", f"SEED={settings.seed}"]
    words += [f"DATA={settings.data}"] if settings.data != "auto" else []
    words += [f"SPLIT={settings.split}"] if settings.split != "grouped" else []
    words += [f"PREPROCESS={settings.preprocess}"] if settings.preprocess != "head" else []
    return f"make generate {' '.join(words)}"


def _marked(name: str, *marks: str) -> str:
    marks = [mark for mark in marks if mark]
    return f"{name} ({', '.join(marks)})" if marks else name


def _data_marks(dataset: Dataset, settings: Settings) -> tuple[str, ...]:
    return (
        dataset.name if dataset.name != "br35h" else "",
        "paper split" if settings.split == "paper" else "",
        "paper preprocessing" if settings.preprocess == "paper" else "",
    )


def _seed_mark(settings: Settings) -> str:
    return f"seed {settings.seed}" if settings.seed else ""


def _training_mark(settings: Settings) -> str:
    if settings.train_on == REAL:
        return ""
    mixed = "real and " if settings.train_on == "mixed" else ""
    return f"trained on {mixed}{Path(settings.generator).name}"


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
    if settings.gpu_share and settings.device in ("cpu", "mps"):
        raise StudyError(
            f"GPU_SHARE={settings.gpu_share:g} has no meaning with DEVICE={settings.device}: it "
            "is a share of a CUDA device's memory. Leave it out."
        )
    searches_detectors = "detector" in study.space or study.name in detectors()
    if settings.detector != DEFAULT_DETECTOR and (searches_detectors or study.kind != "detector"):
        why = "chooses its detector itself" if study.kind == "detector" else "has no detector"
        raise StudyError(
            f"DETECTOR={settings.detector} has no meaning for the study '{study.name}', which "
            f"{why}. Leave DETECTOR out."
        )
    if settings.train_on not in TRAIN_ON:
        raise StudyError(
            f"TRAIN_ON must be one of {', '.join(TRAIN_ON)}, got '{settings.train_on}'."
        )
    if settings.train_on == REAL and settings.generator != DEFAULT_GENERATOR:
        raise StudyError(
            f"GENERATOR={settings.generator} has no meaning where a study trains on real images. "
            "Add TRAIN_ON=synthetic or TRAIN_ON=mixed, or leave GENERATOR out."
        )
    if settings.train_on != REAL and study.kind == "generator":
        raise StudyError(
            f"TRAIN_ON={settings.train_on} has no meaning for the study '{study.name}': a "
            "generator learns from real images alone. Leave TRAIN_ON out."
        )
