"""List who the team's server knows, with their roles and grants."""

import argparse

from mlflow_server.users import Users
from studies.commands.arguments import settings_from


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make users` takes: nothing."""


def main(options: argparse.Namespace) -> int:
    """A line a user; the exit status."""
    for user in Users(settings_from(options).tracking_uri).all():
        grants = [f"{permission} {name}" for _, name, permission in user.grants]
        print(f"{user.name:<20} {user.role:<11} {', '.join(grants)}".rstrip())
    return 0
