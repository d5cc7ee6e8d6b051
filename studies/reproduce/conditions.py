"""The conditions that a study is run under, as files of its parent run.

`settings.json`, and of what may differ between the sessions of one study everything there was, by
its digest: `changes/<digest>.diff`, `requirements/<digest>.txt`. Each trial's tags name its own.
"""

import json
from pathlib import Path

from studies.provenance import digest, installed_packages
from studies.session import Session
from studies.settings import Settings
from training.generator import generators

SETTINGS = "settings.json"
CHANGES, REQUIREMENTS = "changes/{}.diff", "requirements/{}.txt"
SOURCES = ("auto", "br35h", "phantom")  # data that is not named by its folder
WRITTEN = (
    "data",
    "split",
    "preprocess",
    "detector",
    "seed",
    "train_on",
    "generator",
    "label",
    "device",
)


def write_conditions(session: Session) -> Path:
    """Write this session's conditions beside those of earlier ones; the folder of all."""
    folder = session.folder / "conditions"
    written = {"study": session.study.name, **as_written(session.settings)}
    packages = installed_packages()
    _write(folder / SETTINGS, json.dumps(written, indent=1))
    _write(folder / REQUIREMENTS.format(digest(packages)), packages)
    if session.commit.is_dirty:
        _write(folder / CHANGES.format(session.commit.changes), session.commit.diff)
    return folder


def as_written(settings: Settings) -> dict[str, object]:
    """What decides on a trial's numbers; folders by their whole path, to be found from anywhere."""
    written = {name: getattr(settings, name) for name in WRITTEN}
    return written | {
        "data": _whole_path(settings.data, known=SOURCES),
        "generator": _whole_path(settings.generator, known=tuple(generators())),
    }


def _whole_path(named: str, *, known: tuple[str, ...]) -> str:
    """A folder's whole path; what is known by its name keeps that."""
    return named if named in known or not Path(named).is_dir() else str(Path(named).resolve())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
