"""Run a trial again in a clean place, and hold it against its record."""

import argparse

from studies.commands.arguments import places
from studies.reproduce.reproduction import reproduce
from training.device import DEVICES

DIFFERS = 1


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make reproduce` takes."""
    command.add_argument(
        "run", help="the id of a trial's or a study's run, or models:/<name>@<alias>"
    )
    command.add_argument("--data", help="where its images are now, where they have moved")
    command.add_argument("--device", choices=DEVICES, help="another than the run's own kind")


def main(options: argparse.Namespace) -> int:
    """Run it again; 0 where it agrees with its record."""
    done = reproduce(options.run, places(), data=options.data, device=options.device)
    return 0 if done.agreement.agrees else DIFFERS
