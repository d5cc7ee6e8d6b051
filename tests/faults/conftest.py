"""Images and places for tests of faults."""

import pytest
from houses import House, Server

from mlflow_server import local_uri


@pytest.fixture
def house(slices, tmp_path):
    """A place with a database of its own for both records."""
    root = tmp_path / "var"
    return House(slices, root, f"sqlite:///{root / 'optuna.db'}", local_uri(root))


@pytest.fixture
def server(tmp_path):
    """A tracking server that runs; it is gone afterwards."""
    server = Server(tmp_path / "server")
    server.start()
    yield server
    if server.process.poll() is None:
        server.kill()
