"""Hand over to MLflow what studies owe it since it was away."""

import argparse

from studies.commands.arguments import settings_from
from studies.upkeep.sync import sync


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make sync` takes: nothing."""


def main(options: argparse.Namespace) -> int:
    """Hand over; the exit status is 1 where something still waits."""
    return 0 if sync(settings_from(options)) else 1
