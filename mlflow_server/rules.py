"""What the team's server answers at all, asked before MLflow's own permissions.

MLflow calls `authorize` for every request that is not public, inside the server's process (see
`authorization_function` in team.py). Owns which routes are open, who may begin something of their
own, and where files may lie. Who may see or change what there is, is MLflow's affair.

MLflow by itself lets whoever is logged in begin experiments, name any folder or address of the
server's for their files, fill the database with its demo, and reach its gateway, webhooks and
assistant, which call other machines or run programs.
"""

import re

from flask import Response, g, jsonify, request
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import CreateExperiment
from mlflow.utils.uri import validate_path_is_safe

RESEARCHER = "researcher"  # the role whose holders may begin experiments and registered models
HERE = "default"  # roles belong to a workspace, and without workspaces there is one

PAGES = ("/", "/version", "/graphql", "/get-artifact", "/model-versions/get-artifact")
OPEN = (  # parts of MLflow's API
    "artifacts",
    "experiments",
    "gateway-proxy",  # says that there is no gateway (team.py)
    "logged-models",
    "metrics",
    "model-versions",
    "registered-models",
    "roles",
    "runs",
    "ui-telemetry",
    "users",
)
SIGN_UP = "users/create-ui"  # an admin's `make user` says who may come
BEGINS = ("experiments/create", "registered-models/create")
CLOSED = "This part of MLflow is closed on this server."


def authorize():
    """The request's Authorization, or the Response that refuses it."""
    if "admitted" not in g:  # MLflow asks several times a request
        g.admitted = _admit()
    return g.admitted


def _admit():
    from mlflow.server.auth import authenticate_request_basic_auth  # which imports this module

    who = authenticate_request_basic_auth()
    if isinstance(who, Response):
        return who
    reason = refusal(request.path)
    if reason is None and called(request.path) in BEGINS:
        reason = _why_not_begin(who.username)
    return who if reason is None else _forbidden(reason)


def called(path: str) -> str:
    """What a path asks of MLflow's API, without its prefix, as in `runs/create`; else ""."""
    named = re.fullmatch(r"/(?:ajax-)?api/\d+\.\d+/mlflow/(.+)", path)
    return named[1] if named else ""


def refusal(path: str) -> str | None:
    """Why nobody is answered at this path; None where MLflow decides."""
    if files := re.fullmatch(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts(?:/(.*))?", path):
        return _why_not_file(files[1])
    asked = called(path)
    is_open = asked.partition("/")[0] in OPEN and asked != SIGN_UP
    return None if is_open or path in PAGES else CLOSED


def _why_not_file(path: str | None) -> str | None:
    """Files are asked for below an experiment's number, by which MLflow knows whose they are.

    Those of studies that were run beside the server lie under other names, and are read through
    their runs.
    """
    try:
        safe = validate_path_is_safe(request.args.get("path", "") if path is None else path)
    except MlflowException:
        safe = ""
    below_experiment = re.match(r"\d+(/|$)", safe)
    return None if below_experiment else "Files are reached through their experiment alone."


def _why_not_begin(name: str) -> str | None:
    from mlflow.server.auth import store
    from mlflow.server.handlers import _get_request_message

    user = store.get_user(name)
    roles = {role.name for role in store.list_user_roles(user.id)}
    if not (user.is_admin or RESEARCHER in roles):
        return f"{name} reads here, and begins nothing: an admin can give the role {RESEARCHER}."
    if called(request.path) == BEGINS[0] and _get_request_message(CreateExperiment()).HasField(
        "artifact_location"
    ):
        return "The server decides itself where an experiment's files lie."
    return None


def _forbidden(reason: str) -> Response:
    response = jsonify({"error_code": "PERMISSION_DENIED", "message": reason})
    response.status_code = 403
    return response
