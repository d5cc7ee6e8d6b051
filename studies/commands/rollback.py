"""Put the champion before the present one back."""

import argparse

from studies.commands.arguments import alias, settings_from
from studies.promotion.promote import rollback


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make rollback` takes."""
    command.add_argument("--alias", type=alias, default="champion")
    command.add_argument("--why", default="", help="the reason, which is recorded")


def main(options: argparse.Namespace) -> int:
    """Put it back; the exit status."""
    rollback(settings_from(options), alias=options.alias, why=options.why.strip())
    return 0
