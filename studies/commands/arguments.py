"""Arguments that commands share, and what the environment says beside them."""

import argparse
import math
import os
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from mlflow_server import local_uri
from studies.settings import CACHE_GB, DEFAULT_GENERATOR, REAL, TRAIN_ON, Settings
from studies.study import StudyError
from training.data.splits import PROTOCOLS


def settings_from(options: argparse.Namespace, *, without: tuple[str, ...] = ()) -> Settings:
    """What the command line and the environment say, as far as the command asks for it."""
    known = {field.name for field in fields(Settings)} - set(without)
    asked = {name: value for name, value in vars(options).items() if name in known}
    return Settings(**places(), **asked)


def places() -> dict:
    """Where everything is written, from the environment or below `var/`."""
    root = Path(os.environ.get("VAR_DIR", "var")).resolve()
    return {
        "root": root,
        "storage_url": os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{root / 'optuna.db'}",
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI") or local_uri(root),
        "cache_gb": gigabytes(os.environ.get("CACHE_GB") or str(CACHE_GB)),
        "ray_address": os.environ.get("RAY_ADDRESS") or None,
    }


def gigabytes(text: str) -> float:
    """CACHE_GB as a number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise StudyError(f"CACHE_GB must be a number above 0, got '{text}'.")
    return value


def add_study(command: argparse.ArgumentParser) -> None:
    """Which study, under which split and over which detector."""
    command.add_argument("study", help="a name that `list` shows")
    add_split(command)
    command.add_argument("--detector", default="brain_cvae", help="a detector's name, or search")


def add_split(command: argparse.ArgumentParser) -> None:
    """How the images are split."""
    command.add_argument("--split", default="grouped", choices=PROTOCOLS)


def add_surroundings(command: argparse.ArgumentParser) -> None:
    """The arguments of every command that trains: on what, and where."""
    command.add_argument("--seed", type=count("SEED", 0), default=0, help="of split and search")
    command.add_argument("--data", default="auto", help="br35h, phantom, or a folder of yes/, no/")
    command.add_argument("--preprocess", default="head", choices=["head", "paper"])
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def add_training_images(command: argparse.ArgumentParser) -> None:
    """Whether training sees real images, synthetic ones or both."""
    command.add_argument("--train-on", default=REAL, choices=TRAIN_ON)
    command.add_argument(
        "--generator", default=DEFAULT_GENERATOR, help="vae, gan, or a folder of `generate`"
    )


def add_label(command: argparse.ArgumentParser) -> None:
    """What sets a study apart from others of its name."""
    command.add_argument("--label", default="", help="a word of your own")


def add_gpu_share(command: argparse.ArgumentParser) -> None:
    """How much of its GPU's memory a process may take."""
    command.add_argument("--gpu-share", type=gpu_share, help="of a GPU's memory, for each worker")


def count(name: str, at_least: int) -> Callable[[str], int]:
    """A converter for an argument that is a whole number."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < at_least:
            raise argparse.ArgumentTypeError(
                f"{name} must be a whole number of at least {at_least}, got '{text}'."
            )
        return int(text)

    return convert


def share(name: str) -> Callable[[str], float]:
    """A converter for an argument that is a number from 0 to 1."""

    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise argparse.ArgumentTypeError(f"{name} must be a number from 0 to 1, got '{text}'.")
        return value

    return convert


def gpu_share(text: str) -> float:
    """A converter for GPU_SHARE."""
    value = share("GPU_SHARE")(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"GPU_SHARE must be above 0, got '{text}'.")
    return value


def alias(text: str) -> str:
    """A converter for ALIAS, as MLflow takes it."""
    if not re.fullmatch(r"(?!v?\d+$)[\w-]+", text) or text == "latest":
        raise argparse.ArgumentTypeError(
            f"ALIAS must be letters, digits, _ and -, and no version or 'latest', got '{text}'."
        )
    return text


def switch(name: str) -> Callable[[str], bool]:
    """A converter for an argument that is 0 or 1."""

    def convert(text: str) -> bool:
        if text not in ("0", "1"):
            raise argparse.ArgumentTypeError(f"{name} must be 0 or 1, got '{text}'.")
        return text == "1"

    return convert


def seconds(text: str) -> float:
    """A converter for TIMEOUT."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"TIMEOUT must be whole seconds above 0, got '{text}'.")
    return float(text)
