"""Let somebody in, give them another password or role, or let them in no more."""

import argparse
import os
import sys
from getpass import getpass

from mlflow_server.users import READER, ROLES, Users
from studies.commands.arguments import settings_from, switch
from studies.study import StudyError

PASSWORD = "MLFLOW_USER_PASSWORD"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make user` takes; a password is never among it."""
    command.add_argument("name")
    command.add_argument("--role", choices=ROLES, help="what they may do; reader for a new user")
    command.add_argument("--delete", type=switch("DELETE"), default=False, help="1: no more")


def main(options: argparse.Namespace) -> int:
    """Change one user; the exit status."""
    if not options.name:
        raise StudyError("NAME must name a user: `make user NAME=ana`.")
    users = Users(settings_from(options).tracking_uri)
    if options.delete:
        users.delete(options.name)
        print(f"{options.name} is let in no more.")
        return 0
    known = users.find(options.name)
    if known is None:
        users.add(options.name, ask_password(options.name), options.role or READER)
        print(f"{options.name} may log in as a {options.role or READER}.")
        return 0
    if options.role:
        users.set_role(options.name, options.role)
        print(f"{options.name} is a {options.role}.")
    if os.environ.get(PASSWORD) or not options.role:
        users.set_password(options.name, ask_password(options.name))
        print(f"{options.name} has another password.")
    return 0


def ask_password(name: str) -> str:
    """From the environment, or from the terminal, twice and unseen."""
    if password := os.environ.get(PASSWORD):
        return password
    if not sys.stdin.isatty():
        raise StudyError(f"Set {PASSWORD} to the password of {name}: there is no terminal to ask.")
    password = getpass(f"Password of {name}: ")
    if getpass("Once more: ") != password:
        raise StudyError("The two passwords differ: nothing was changed.")
    return password
