"""A tracking server that others may reach: who is let in, and under which names it answers.

Owns the log-in (the admin's password, the server's secret, MLflow's settings for both) and the
addresses that are answered. Does not start the process (server.py), and knows no other user
(users.py).
"""

import ipaddress
import os
import re
import secrets
import socket
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from werkzeug.security import check_password_hash

from mlflow_server.connection import TrackingError

ADMIN_NAME, ADMIN_PASSWORD = "MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD"
SECRETS = (ADMIN_PASSWORD, "MLFLOW_TRACKING_PASSWORD", "MLFLOW_USER_PASSWORD")
SHORTEST = 12  # characters of a password: MLflow's own rule

AUTH_SETTINGS = """[mlflow]
default_permission = READ
database_uri = sqlite:///{users}
authorization_function = mlflow_server.rules:authorize
# A password is hashed once a minute and not for each request; there is one worker, which hears of
# every change.
auth_cache_ttl_seconds = 60
"""

# Nothing in the environment opens what is closed here.
SHUT = {
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "false",
    "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
    "MLFLOW_ENABLE_WORKSPACES": "false",
    "MLFLOW_DEPLOYMENTS_TARGET": "",  # the UI asks what gateways there are: none
}


# This machine's own names, at any port: through an ssh tunnel it is another one.
LOOPBACK = ("localhost", "localhost:*", "127.0.0.1", "127.0.0.1:*")


@dataclass(frozen=True)
class Door:
    """How a server is reached: its address, the names it answers to, and what guards it."""

    host: str
    port: int
    names: tuple[str, ...] = ()  # as they may stand in a Host header, beside this machine's own
    options: tuple[str, ...] = ()  # of `mlflow server`
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """The address that is said and asked: that of the machine itself where all are open."""
        shown = "127.0.0.1" if _is_everywhere(self.host) else self.host
        return f"http://{_bracketed(shown)}:{self.port}"

    def command(self) -> list[str]:
        """The part of `mlflow server`'s command line that is about the door."""
        origins = [f"{scheme}://{name}" for name in self.names for scheme in ("http", "https")]
        return [
            *("--host", self.host, "--port", str(self.port)),
            *("--allowed-hosts", ",".join([*LOOPBACK, *self.names])),
            *(("--cors-allowed-origins", ",".join(origins)) if origins else ()),
            *("--x-frame-options", "SAMEORIGIN"),
            *self.options,
        ]


def without_login(host: str, port: int, *, allowed_hosts: Sequence[str] = ()) -> Door:
    """For this machine alone: whoever reaches it may do everything."""
    if not is_loopback(host):
        raise TrackingError(
            f"HOST={host} lets others in: ask for their names and passwords with AUTH=1, "
            f"or leave HOST at 127.0.0.1."
        )
    if allowed_hosts:
        raise TrackingError("ALLOWED_HOSTS names where others come from: it needs AUTH=1.")
    return Door(host, port, answered_names(host, port, ()), environment=SHUT)


def with_login(host: str, port: int, *, allowed_hosts: Sequence[str] = (), folder: Path) -> Door:
    """For whoever has a name and a password. `folder` keeps them, and the server's secret."""
    names = answered_names(host, port, allowed_hosts)
    folder.mkdir(parents=True, exist_ok=True)
    users, settings = folder / "users.db", folder / "auth.ini"
    admin = _admin(users)
    _private(users)  # MLflow fills it, and leaves it as private as it is
    _private(settings)
    settings.write_text(AUTH_SETTINGS.format(users=users.resolve()))
    return Door(
        host,
        port,
        names,
        options=("--app-name", "basic-auth"),
        environment={
            **SHUT,
            **dict.fromkeys(SECRETS, ""),  # whoever starts the server may be logged in elsewhere
            **admin,
            "MLFLOW_AUTH_CONFIG_PATH": str(settings.resolve()),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": _kept_secret(folder / "server.secret"),
        },
    )


def check_name(name: str) -> None:
    """A user's name goes into headers and addresses."""
    if not (name.isascii() and name.replace("-", "").replace("_", "").replace(".", "").isalnum()):
        raise TrackingError(
            f"NAME must be made of ASCII letters, digits, '.', '-' and '_', got {name!r}."
        )


def check_password(password: str, source: str) -> None:
    """Refuse what MLflow or the headers that carry it would refuse; the password is never said."""
    if len(password) < SHORTEST:
        raise TrackingError(
            f"{source} must have at least {SHORTEST} characters, got {len(password)}."
        )
    if not (password.isascii() and password.isprintable()):
        raise TrackingError(f"{source} must be made of printable ASCII characters.")


def answered_names(host: str, port: int, also: Sequence[str]) -> tuple[str, ...]:
    """The Host headers that are answered: `host` or the machine's name, and `also`, each with and
    without the port."""
    for name in also:
        if not re.fullmatch(r"[\w.-]+(:\d+)?|\[[\da-fA-F:]+\](:\d+)?", name):
            raise TrackingError(
                f"ALLOWED_HOSTS must be names or addresses as browsers write them, without http:// "
                f"and patterns, a comma between two, got {name!r}."
            )
    own = [socket.gethostname()] if _is_everywhere(host) else [_bracketed(host)]
    both = [(name, f"{name}:{port}") for name in [*own, *also]]
    return tuple(dict.fromkeys(name for pair in both for name in pair))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_everywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::")


def _bracketed(host: str) -> str:
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host


def _admin(users: Path) -> dict[str, str]:
    """What MLflow is told of the admin; the password only until it is in the database.

    Once the admin is there, MLflow ignores another password without a word.
    """
    name = os.environ.get(ADMIN_NAME) or "admin"
    password = os.environ.get(ADMIN_PASSWORD, "")
    check_name(name)
    kept = _kept_user(users, name)
    if kept is None:
        if not password:
            raise TrackingError(
                f"AUTH=1 needs a password for {name}: set {ADMIN_PASSWORD} in the environment, "
                f"at least {SHORTEST} characters."
            )
        check_password(password, ADMIN_PASSWORD)
        return {ADMIN_NAME: name, ADMIN_PASSWORD: password}
    kept_hash, is_admin = kept
    if not is_admin:
        raise TrackingError(f"{name} is a user, and no admin: set {ADMIN_NAME} to another name.")
    if password and not check_password_hash(kept_hash, password):
        raise TrackingError(
            f"{name} has another password than {ADMIN_PASSWORD} says: unset that, the kept one "
            f"holds (if it is lost, start once with another {ADMIN_NAME}, who can set it anew)."
        )
    return {ADMIN_NAME: name}


def _kept_user(users: Path, name: str) -> tuple[str, bool] | None:
    """The hash of a user's password, and whether they are an admin."""
    if not users.exists():
        return None
    with closing(sqlite3.connect(users)) as database:
        try:
            query = "select password_hash, is_admin from users where username = ?"
            return database.execute(query, [name]).fetchone()
        except sqlite3.DatabaseError as error:
            if "no such table" in str(error):
                return None  # a first start that was interrupted
            raise TrackingError(
                f"The users' database {users} cannot be read ({error}): move it away, and users "
                f"and grants are made anew."
            ) from error


def _kept_secret(file: Path) -> str:
    """What the server signs its forms with: made once."""
    _private(file)
    if not file.read_text():
        file.write_text(secrets.token_hex(32))
    return file.read_text()


def _private(file: Path) -> None:
    """Have the file there, for nobody but its owner."""
    os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    file.chmod(0o600)
