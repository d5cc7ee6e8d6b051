"""Search every detector under every head, on both splits."""

import argparse

from studies.commands import INTERRUPTED
from studies.commands.arguments import (
    add_label,
    add_surroundings,
    add_training_images,
    count,
    settings_from,
)
from studies.table import Selection, make_table
from training.data.splits import PROTOCOLS


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make table` takes."""
    command.add_argument("--trials", type=count("TRIALS", 1), default=25, help="of each cell")
    command.add_argument("--split", choices=PROTOCOLS, help="the only one to run")
    command.add_argument("--detector", help="the only row to run")
    command.add_argument("--study", help="the only column to run")
    add_training_images(command)
    add_surroundings(command)
    add_label(command)


def main(options: argparse.Namespace) -> int:
    """Fill it; the exit status."""
    # a row and a split are chosen among, where other commands take them as they are
    settings = settings_from(options, without=("split", "detector"))
    selection = Selection(options.split, options.detector, options.study)
    return 0 if make_table(settings, selection) else INTERRUPTED
