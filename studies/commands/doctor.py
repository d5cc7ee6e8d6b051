"""Look whether everything that studies stand on is well, and say the cure of what is not."""

import argparse

from studies.commands.arguments import settings_from
from studies.upkeep.doctor import examine


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make doctor` takes: nothing."""


def main(options: argparse.Namespace) -> int:
    """Look; the exit status is 1 where something was found."""
    return 0 if examine(settings_from(options)) else 1
