"""Search, conclude and publish one study."""

import argparse

from studies.commands import INTERRUPTED
from studies.commands.arguments import (
    add_label,
    add_study,
    add_surroundings,
    add_training_images,
    count,
    seconds,
    settings_from,
)
from studies.runner import run
from studies.study import find_study


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make study` takes."""
    add_study(command)
    command.add_argument("--trials", type=count("TRIALS", 1), help="how many to add")
    command.add_argument("--timeout", type=seconds, help="seconds after which none begins")
    add_training_images(command)
    add_surroundings(command)
    add_label(command)


def main(options: argparse.Namespace) -> int:
    """Run it; the exit status."""
    return 0 if run(find_study(options.study), settings_from(options)) else INTERRUPTED
