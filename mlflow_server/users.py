"""Who may use the team's server, and what they may do there: asked of the server as its admin.

Owns roles and grants as they are said to people. The server keeps them (team.py); what a role may
do is in rules.py.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.utils.credentials import get_default_host_creds, read_mlflow_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mlflow_server.connection import (
    TrackingError,
    TrackingRefused,
    connect,
    in_pages,
    is_server,
    tracking_errors,
)
from mlflow_server.rules import HERE, RESEARCHER
from mlflow_server.team import check_name, check_password

READER, ADMIN = "reader", "admin"
ROLES = (READER, RESEARCHER, ADMIN)  # each may what those before it may
HIDDEN = "?"  # only admins see the roles and grants of others
DEFAULT = "DEFAULT"  # a grant is taken back: the user reads, as all do
PERMISSIONS = ("READ", "EDIT", "MANAGE", "DENY", DEFAULT)  # DENY: not even seen

Kind = Literal["experiment", "registered_model"]


class User(NamedTuple):
    """Somebody the server knows; `grants` are theirs alone, as (kind, name, permission)."""

    name: str
    role: str
    grants: tuple[tuple[str, str, str], ...] = ()


class NoLogin(TrackingError):
    """A server that lets everybody do everything."""


class Users:
    """The users of one server, as far as whoever is logged in may see and change them."""

    def __init__(self, uri: str):
        """Connect, or raise TrackingError; a database alone knows no users."""
        if not is_server(uri):
            raise TrackingError(
                "Users are known to a server with a log-in: start it with `make server AUTH=1`, "
                "and set MLFLOW_TRACKING_URI to its address."
            )
        self._uri = uri.rstrip("/")
        self._client = connect(uri)
        try:
            self._me = self._ask("GET", "users/current")["user"]
        except MlflowException as error:
            raise NoLogin(
                f"The server at {uri} has no log-in: start it with `make server AUTH=1`."
            ) from error

    def all(self) -> list[User]:
        """Everybody, with their grants."""
        with tracking_errors("Listing the users"):
            names = {e.experiment_id: e.name for e in in_pages(self._client.search_experiments)}
            return [self._user(found, names) for found in self._ask("GET", "users/list")["users"]]

    def find(self, name: str) -> User | None:
        """One user, if the server knows them."""
        return next((user for user in self.all() if user.name == name), None)

    def add(self, name: str, password: str, role: str = READER) -> None:
        """Let somebody in."""
        check_name(name)
        check_password(password, "The password")
        with tracking_errors(f"Adding the user {name}"):
            self._ask("POST", "users/create", username=name, password=password)
        self.set_role(name, role)

    def set_password(self, name: str, password: str) -> None:
        """Give another password; one's own needs no admin."""
        check_password(password, "The password")
        own = (
            {"current_password": read_mlflow_creds().password}
            if name == self._me["username"]
            else {}
        )
        with tracking_errors(f"Setting the password of {name}"):
            self._ask("PATCH", "users/update-password", username=name, password=password, **own)

    def set_role(self, name: str, role: str) -> None:
        """Give another role; grants stay."""
        before = self._known(name).role
        if before == role:
            return
        with tracking_errors(f"Making {name} a {role}"):
            if ADMIN in (before, role):
                self._ask("PATCH", "users/update-admin", username=name, is_admin=role == ADMIN)
            if role == RESEARCHER:
                whom = {"username": name, "role_id": self._researchers()}
                self._ask("POST", "roles/assign", version=3, **whom)
            elif before == RESEARCHER:
                whom = {"username": name, "role_id": self._researchers()}
                self._ask("DELETE", "roles/unassign", version=3, **whom)

    def delete(self, name: str) -> None:
        """Let somebody in no more; what they made stays."""
        self._known(name)
        with tracking_errors(f"Deleting the user {name}"):
            self._ask("DELETE", "users/delete", username=name)

    def grant(self, name: str, kind: Kind, resource: str, permission: str) -> None:
        """Say what a user may do with one experiment or registered model; the last word holds."""
        self._known(name)
        with tracking_errors(f"Granting {permission} on {resource} to {name}"):
            whom = {
                "username": name,
                "resource_type": kind,
                "resource_id": self._id(kind, resource),
            }
            self._take_back(whom)
            if permission != DEFAULT:
                self._ask(
                    "POST", "users/permissions/grant", version=3, **whom, permission=permission
                )

    def check_may_register(self, model: str) -> None:
        """Say at once what the server would say at the end of a study."""
        name = self._me["username"]
        me = self._known(name)
        if me.role == ADMIN:
            return
        asked = {"username": name, "resource_type": "registered_model", "resource_id": model}
        with tracking_errors(f"Asking who may register versions of {model}"):
            try:
                self._client.get_registered_model(model)
                held = self._ask("GET", "users/permissions/get", version=3, **asked)["permission"]
                may = held in ("EDIT", "MANAGE")
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                may = me.role == RESEARCHER
        if not may:
            raise TrackingRefused(
                f"{name} may not register versions of {model}, as the study would at its end. Who "
                f"owns it, or an admin, can allow it: `make grant NAME={name} PERMISSION=EDIT "
                f"MODEL={model}`; or give the study a LABEL."
            )

    def _take_back(self, whom: dict[str, str]) -> None:
        """Who is no admin does not see other users' grants, even on what is their own."""
        try:
            self._ask("POST", "users/permissions/revoke", version=3, **whom)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise

    def _known(self, name: str) -> User:
        users = self.all()
        found = next((user for user in users if user.name == name), None)
        if found is None:
            known = ", ".join(user.name for user in users)
            raise TrackingError(f"Unknown user {name!r}. Known: {known}.")
        return found

    def _user(self, found: dict[str, Any], experiments: dict[str, str]) -> User:
        """Roles that MLflow keeps for one user alone, `__user_<id>__`, hold their grants."""
        names = [role["name"] for role in found["roles"]]
        role = ADMIN if found["is_admin"] else RESEARCHER if RESEARCHER in names else READER
        if role == READER and not self._me["is_admin"] and found["id"] != self._me["id"]:
            role = HIDDEN
        own = [role for role in found["roles"] if role["name"] == f"__user_{found['id']}__"]
        return User(found["username"], role, tuple(_grants(own, experiments)))

    def _researchers(self) -> int:
        """The id of MLflow's role for those who may begin studies, made when it is first given."""
        roles = self._ask("GET", "roles/list", version=3, workspace=HERE)["roles"]
        for role in roles:
            if role["name"] == RESEARCHER:
                return role["id"]
        made = self._ask("POST", "roles/create", version=3, workspace=HERE, name=RESEARCHER)
        return made["role"]["id"]

    def _id(self, kind: Kind, name: str) -> str:
        if kind == "registered_model":
            return self._client.get_registered_model(name).name
        found = self._client.get_experiment_by_name(name)
        if found is None:
            known = ", ".join(sorted(e.name for e in in_pages(self._client.search_experiments)))
            raise TrackingError(f"Unknown EXPERIMENT {name!r}. Known: {known}.")
        return found.experiment_id

    def _ask(self, method: str, what: str, *, version: int = 2, **body: object) -> dict[str, Any]:
        endpoint = f"/api/{version}.0/mlflow/{what}"
        sent = {"params": body} if method == "GET" else {"json": body}
        answer = http_request(get_default_host_creds(self._uri), endpoint, method, **sent)
        return verify_rest_response(answer, endpoint).json()


def _grants(roles: Sequence[dict[str, Any]], experiments: dict[str, str]):
    for role in roles:
        for grant in role.get("permissions", []):
            kind, named = grant["resource_type"], grant["resource_pattern"]
            name = experiments.get(named, named) if kind == "experiment" else named
            yield kind, name, grant["permission"]


def check_may_register(uri: str, model: str) -> None:
    """Refuse what a server with a log-in would refuse this user; all others refuse nothing."""
    if is_server(uri):
        with suppress(NoLogin):
            Users(uri).check_may_register(model)
