"""Repeat a study over several splits, with controls."""

import argparse

from studies.commands import INTERRUPTED
from studies.commands.arguments import (
    add_label,
    add_study,
    add_surroundings,
    count,
    settings_from,
)
from studies.evidence import N_SPLITS, make_evidence
from studies.study import find_study


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make evidence` takes."""
    add_study(command)
    command.add_argument("--splits", type=count("SPLITS", 1), default=N_SPLITS, help="how many")
    command.add_argument("--trials", type=count("TRIALS", 1), help="of each split's study")
    add_surroundings(command)
    add_label(command)


def main(options: argparse.Namespace) -> int:
    """Gather it; the exit status."""
    done = make_evidence(find_study(options.study), settings_from(options), options.splits)
    return 0 if done else INTERRUPTED
