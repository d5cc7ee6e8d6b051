"""Open the tracking server over this folder's databases."""

import argparse

from studies.commands.arguments import count, settings_from
from studies.ui import open_ui


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make ui` takes."""
    command.add_argument("--port", type=count("PORT", 1), default=5000)


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; the exit status."""
    open_ui(settings_from(options), port=options.port)
    return 0
