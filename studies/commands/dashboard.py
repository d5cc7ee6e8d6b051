"""Open Optuna's dashboard over the trials of all studies."""

import argparse

from studies.commands.arguments import count, settings_from
from studies.compare.dashboard import open_dashboard


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make dashboard` takes."""
    command.add_argument("--port", type=count("PORT", 1), default=8080)


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; the exit status."""
    settings = settings_from(options)
    settings.root.mkdir(parents=True, exist_ok=True)
    open_dashboard(settings.storage_url, port=options.port)
    return 0
