"""List every decision about champions: who, when, from what to what, and why."""

import argparse

from studies.commands.arguments import settings_from, switch
from studies.promotion.promote import open_registry
from studies.promotion.timeline import as_json, as_lines


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make history` takes."""
    command.add_argument("--json", type=switch("JSON"), default=False, help="1: all evidence")


def main(options: argparse.Namespace) -> int:
    """List them; the exit status."""
    entries = open_registry(settings_from(options)).history.entries()
    print(as_json(entries) if options.json else as_lines(entries))
    return 0
