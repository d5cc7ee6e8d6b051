"""Say what a user may do with one experiment or one registered model."""

import argparse

from mlflow_server.users import PERMISSIONS, Users
from studies.commands.arguments import settings_from
from studies.study import StudyError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make grant` takes."""
    command.add_argument("name", help="a user that `users` lists")
    command.add_argument("--experiment", help="its name: that of the study")
    command.add_argument("--model", help="a registered model's name")
    command.add_argument(
        "--permission",
        required=True,
        choices=PERMISSIONS,
        help="EDIT also writes, MANAGE also deletes and grants, DENY hides; DEFAULT takes it back",
    )


def main(options: argparse.Namespace) -> int:
    """Grant it; the exit status."""
    if bool(options.experiment) == bool(options.model):
        raise StudyError("A grant is for one EXPERIMENT or one MODEL: name one of the two.")
    kind = "experiment" if options.experiment else "registered_model"
    resource = options.experiment or options.model
    users = Users(settings_from(options).tracking_uri)
    users.grant(options.name, kind, resource, options.permission)
    print(f"{options.name}: {options.permission} on {resource}.")
    return 0
