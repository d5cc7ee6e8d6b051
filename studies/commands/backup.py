"""Save databases, runs, models and reports in one archive."""

import argparse

from studies.commands.arguments import settings_from
from studies.upkeep.backup import back_up


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make backup` takes."""
    command.add_argument("--to", help="a file that ends in .tar.gz or .tar, or a folder")


def main(options: argparse.Namespace) -> int:
    """Save; the exit status."""
    back_up(settings_from(options), options.to)
    return 0
