"""Let a registered model answer over HTTP, on this machine."""

import argparse

from studies.commands.arguments import count, settings_from
from studies.settings import CHAMPION
from studies.use.serve import serve


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make serve` takes."""
    command.add_argument("--model", default=CHAMPION, help=f"else {CHAMPION}")
    command.add_argument("--port", type=count("PORT", 1), default=5001)


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; the exit status."""
    serve(options.model, settings_from(options), port=options.port)
    return 0
