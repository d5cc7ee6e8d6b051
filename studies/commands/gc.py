"""Remove the files of all but the best trials, and what else nobody needs."""

import argparse

from studies.commands.arguments import count, settings_from, switch
from studies.upkeep.gc import collect
from studies.upkeep.needs import KEEP


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make gc` takes."""
    command.add_argument("--keep", type=count("KEEP", 0), default=KEEP, help="trials of each study")
    command.add_argument("--dry", type=switch("DRY"), help="1: only say what would go; 0: delete")


def main(options: argparse.Namespace) -> int:
    """Clear up; the exit status."""
    collect(settings_from(options), keep=options.keep, dry=options.dry)
    return 0
