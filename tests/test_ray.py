"""Workers as Ray tasks on a real cluster of this machine, over PostgreSQL."""

import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from test_workers import check_equal, images, search_of, study, wait_for, workers_of  # noqa: F401

from studies.commands import INTERRUPTED
from studies.storage import n_ended

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """A Ray of two processors that lives apart from any driver; RAY_ADDRESS names it."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        port, clients = one.getsockname()[1], other.getsockname()[1]
    address = f"127.0.0.1:{port}"
    options = f"--head --port={port} --ray-client-server-port={clients} --num-cpus=2"
    options += " --node-ip-address=127.0.0.1 --include-dashboard=false --disable-usage-stats"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options.split(), "--block"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield address
    process.terminate()
    try:
        process.wait(timeout=30)
    finally:
        os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None


def start_when_ready(study, *arguments):  # noqa: F811
    time.sleep(5)
    return study(*arguments)


def test_a_study_outlives_a_worker_and_its_driver_and_is_joined_again(study, cluster):  # noqa: F811
    asked = ("--trials", "60", "--workers", "2", "--engine", "ray")
    with start_when_ready(study, *asked) as driver:
        wait_for(lambda: search_of(study), driver)
        search = search_of(study)
        wait_for(lambda: len(workers_of(search.trials)) == 2, driver)
        psutil.Process(max(workers_of(search.trials))).kill()
        driver.kill()
        driver.wait()
    n = n_ended(search)
    deadline = time.monotonic() + 200
    while n_ended(search) == n and time.monotonic() < deadline:
        time.sleep(0.2)
    assert n_ended(search) > n  # nobody watches, and it goes on
    with study(*asked) as driver:
        said, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0 != INTERRUPTED
    assert "it goes on" in said and "Registered: models:/giaem-slices" in said
    assert n_ended(search) == 60
    check_equal(study, search)
