"""Try a registered model on other images."""

import argparse
from pathlib import Path

from studies.commands.arguments import add_label, add_split, count, settings_from
from studies.external import default_model, try_elsewhere
from studies.study import StudyError, find_study


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make external` takes."""
    command.add_argument("folder", help="with yes/ or no/ or both")
    command.add_argument("--model", help="models:/<name>@<alias>; else the study's candidate")
    command.add_argument("--study", default="global_kmeans", help="whose candidate")
    add_split(command)
    command.add_argument("--detector", default="brain_cvae")
    command.add_argument("--seed", type=count("SEED", 0), default=0)
    command.add_argument("--preprocess", default="head", choices=["head", "paper"])
    add_label(command)


def main(options: argparse.Namespace) -> int:
    """Try it; the exit status."""
    settings = settings_from(options)
    if not options.folder:
        raise StudyError("DATA must name a folder with yes/ or no/ or both: `make external DATA=`.")
    model = options.model or default_model(find_study(options.study), settings)
    try_elsewhere(Path(options.folder), model, settings)
    return 0
