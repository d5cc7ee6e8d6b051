"""The command line: `python -m studies run|generate|table|paper|evidence|external|list|ui`.

It reads arguments and environment, and turns what is wrong with the input into one sentence and
exit status 2.
"""

import argparse
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

import optuna
from optuna.exceptions import StorageInternalError

from mlflow_server import TrackingError, local_uri
from studies.evidence import N_SPLITS, make_evidence
from studies.external import default_model, try_elsewhere
from studies.generate import N_IMAGES, generate
from studies.paper import make_paper
from studies.paper_effort import FULL, QUICK
from studies.runner import run
from studies.settings import DEFAULT_GENERATOR, REAL, TRAIN_ON, Settings
from studies.study import StudyError, describe_studies, find_study
from studies.table import SPLITS, Selection, make_table
from studies.ui import open_ui
from training.cache import CacheError
from training.data import DataError
from training.data.splits import SHARES
from training.device import DeviceError
from training.loop import TrainingError

INPUT_ERRORS = (StudyError, DataError, DeviceError, TrainingError, CacheError, TrackingError)
BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = parser().parse_args(arguments)
    quiet()
    try:
        return COMMANDS[options.command](options)
    except INPUT_ERRORS as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except StorageInternalError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        print(f"Optuna's storage does not answer ({reason}). Is the disk full?", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


def settings_from(options: argparse.Namespace, *, without: tuple[str, ...] = ()) -> Settings:
    """What the command line and the environment say, as far as the command asks for it."""
    known = {field.name for field in fields(Settings)} - set(without)
    asked = {name: value for name, value in vars(options).items() if name in known}
    return Settings(**places(), **asked)


def run_study(options: argparse.Namespace) -> int:
    """`run`: search, conclude, publish."""
    return 0 if run(find_study(options.study), settings_from(options)) else INTERRUPTED


def make_images(options: argparse.Namespace) -> int:
    """`generate`: synthetic images of each class."""
    generate(settings_from(options), n=options.n, scheme=options.scheme)
    return 0


def fill_table(options: argparse.Namespace) -> int:
    """`table`: every detector under every head."""
    # a row and a split are chosen among, where other commands take them as they are
    settings = settings_from(options, without=("split", "detector"))
    selection = Selection(options.split, options.detector, options.study)
    return 0 if make_table(settings, selection) else INTERRUPTED


def fill_paper(options: argparse.Namespace) -> int:
    """`paper`: the paper's Table 1."""
    effort = QUICK if options.quick else FULL
    done = make_paper(settings_from(options), effort, options.seeds)
    return 0 if done else INTERRUPTED


def gather_evidence(options: argparse.Namespace) -> int:
    """`evidence`: a study over several splits, with controls."""
    done = make_evidence(find_study(options.study), settings_from(options), options.splits)
    return 0 if done else INTERRUPTED


def answer_elsewhere(options: argparse.Namespace) -> int:
    """`external`: a registered model on a folder of other images."""
    settings = settings_from(options)
    if not options.folder:
        raise StudyError("DATA must name a folder with yes/ or no/ or both: `make external DATA=`.")
    model = options.model or default_model(find_study(options.study), settings)
    try_elsewhere(Path(options.folder), model, settings)
    return 0


def list_studies(options: argparse.Namespace) -> int:
    """`list`: a line a study."""
    print("\n".join(describe_studies()))
    return 0


def show_ui(options: argparse.Namespace) -> int:
    """`ui`: the tracking server over this folder's databases."""
    open_ui(Settings(**places()), port=options.port)
    return 0


COMMANDS = {
    "run": run_study,
    "generate": make_images,
    "table": fill_table,
    "paper": fill_paper,
    "evidence": gather_evidence,
    "external": answer_elsewhere,
    "list": list_studies,
    "ui": show_ui,
}


def places() -> dict:
    """Where everything is written, from the environment or below `var/`."""
    root = Path(os.environ.get("VAR_DIR", "var")).resolve()
    return {
        "root": root,
        "storage_url": os.environ.get("OPTUNA_STORAGE") or f"sqlite:///{root / 'optuna.db'}",
        "tracking_uri": os.environ.get("MLFLOW_TRACKING_URI") or local_uri(root),
    }


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, without its usage."""

    def error(self, message: str) -> NoReturn:
        """End with the sentence alone."""
        self.exit(BAD_INPUT, re.sub(r"^argument [^:]*: (?=[A-Z])", "", message) + "\n")


def parser() -> argparse.ArgumentParser:
    """The arguments of every command."""
    top = Parser(prog="python -m studies", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)
    study = commands.add_parser("run", help="search, conclude and publish one study")
    study.add_argument("study", help="a name that `list` shows")
    study.add_argument("--trials", type=count("TRIALS", 1), help="how many to add")
    study.add_argument("--timeout", type=seconds, help="seconds after which none begins")
    study.add_argument("--split", default="grouped", choices=SPLITS)
    study.add_argument("--detector", default="brain_cvae", help="a detector's name, or search")
    add_training_images(study)
    add_surroundings(study)
    add_label(study)
    images = commands.add_parser("generate", help="synthetic images of each class")
    images.add_argument("generator", help="a generator's name: vae or gan")
    images.add_argument("--n", type=count("N", 1), default=N_IMAGES, help="of each class")
    images.add_argument(
        "--for",
        dest="scheme",
        default="classifier",
        choices=list(SHARES),
        help="whose training split is learned from",
    )
    images.add_argument("--split", default="grouped", choices=SPLITS)
    add_surroundings(images)
    table = commands.add_parser("table", help="every detector under every head, on both splits")
    table.add_argument("--trials", type=count("TRIALS", 1), default=25, help="of each cell")
    table.add_argument("--split", choices=SPLITS, help="the only one to run")
    table.add_argument("--detector", help="the only row to run")
    table.add_argument("--study", help="the only column to run")
    add_training_images(table)
    add_surroundings(table)
    add_label(table)
    paper = commands.add_parser(
        "paper", help="the paper's Table 1, its rows on synthetic images too"
    )
    paper.add_argument("--split", default="grouped", choices=SPLITS)
    paper.add_argument("--seeds", type=count("SEEDS", 1), help="how many, from --seed on")
    paper.add_argument("--quick", type=switch("QUICK"), default=False, help="1: in minutes")
    add_surroundings(paper)
    evidence = commands.add_parser("evidence", help="repeat a study over splits, with controls")
    evidence.add_argument("study", help="a name that `list` shows")
    evidence.add_argument("--splits", type=count("SPLITS", 1), default=N_SPLITS, help="how many")
    evidence.add_argument("--trials", type=count("TRIALS", 1), help="of each split's study")
    evidence.add_argument("--split", default="grouped", choices=SPLITS)
    evidence.add_argument("--detector", default="brain_cvae", help="a detector's name, or search")
    add_surroundings(evidence)
    add_label(evidence)
    external = commands.add_parser("external", help="a registered model on other images")
    external.add_argument("folder", help="with yes/ or no/ or both")
    external.add_argument("--model", help="models:/<name>@<alias>; else the study's candidate")
    external.add_argument("--study", default="global_kmeans", help="whose candidate")
    external.add_argument("--split", default="grouped", choices=SPLITS)
    external.add_argument("--detector", default="brain_cvae")
    external.add_argument("--seed", type=count("SEED", 0), default=0)
    external.add_argument("--preprocess", default="head", choices=["head", "paper"])
    add_label(external)
    commands.add_parser("list", help="the studies there are")
    ui = commands.add_parser("ui", help="open the tracking server")
    ui.add_argument("--port", type=count("PORT", 1), default=5000)
    return top


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


def count(name: str, at_least: int) -> Callable[[str], int]:
    """A converter for an argument that is a whole number."""

    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < at_least:
            raise argparse.ArgumentTypeError(
                f"{name} must be a whole number of at least {at_least}, got '{text}'."
            )
        return int(text)

    return convert


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


def quiet() -> None:
    """The libraries' own progress lines give way to ours."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


if __name__ == "__main__":
    sys.exit(main())
