"""Open the tracking server to a team: who logs in, and under which names it answers."""

import argparse

from mlflow_server.team import Door, with_login, without_login
from studies.commands.arguments import count, settings_from, switch
from studies.settings import Settings
from studies.ui import open_server


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make server` takes."""
    command.add_argument("--host", default="127.0.0.1", help="the address that it listens on")
    command.add_argument("--port", type=count("PORT", 1), default=5000)
    command.add_argument("--auth", type=switch("AUTH"), default=False, help="1: ask who it is")
    command.add_argument(
        "--allowed-hosts", default="", help="names that it is called by, a comma between two"
    )


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C; the exit status."""
    settings = settings_from(options)
    open_server(settings, _door(options, settings))
    return 0


def _door(options: argparse.Namespace, settings: Settings) -> Door:
    names = [name.strip() for name in options.allowed_hosts.split(",") if name.strip()]
    if not options.auth:
        return without_login(options.host, options.port, allowed_hosts=names)
    folder = settings.artifact_root.parent
    return with_login(options.host, options.port, allowed_hosts=names, folder=folder)
