"""Join a study that was begun, run trials until its budget is met, and leave."""

import argparse

from studies.commands import INTERRUPTED
from studies.commands.arguments import (
    add_gpu_share,
    add_label,
    add_study,
    add_surroundings,
    add_training_images,
    seconds,
    settings_from,
)
from studies.study import find_study
from studies.workers.work import work


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What a worker takes: the study as it was begun."""
    add_study(command)
    command.add_argument("--timeout", type=seconds, help="seconds after which no trial begins")
    add_training_images(command)
    add_surroundings(command)
    add_label(command)
    add_gpu_share(command)


def main(options: argparse.Namespace) -> int:
    """Work; the exit status."""
    return 0 if work(find_study(options.study), settings_from(options)) else INTERRUPTED
