"""Workers as Ray tasks on a real cluster of this machine, over PostgreSQL."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_workers import check_equal, images, search_of, study, wait_for, workers_of  # noqa: F401

from studies.settings import Settings
from studies.storage import n_ended
from studies.study import StudyError
from studies.workers.on_ray import connect, import_ray

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """A Ray of two processors that lives apart from any driver; RAY_ADDRESS names it."""
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    options = f"--head --port={port} --num-cpus=2 --include-dashboard=false --disable-usage-stats"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # as on a cluster: who has no token is refused
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options.split(), "--block"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        log = folder / "log"
        wait_for(lambda: "Ray runtime started" in log.read_text(), process, seconds=60)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_a_cluster_that_is_not_there_is_said_at_once():
    settings = Settings(Path(), "postgresql://db/trials", "", ray_address="127.0.0.1:9")
    with pytest.raises(StudyError, match=r"no Ray cluster at RAY_ADDRESS=127.0.0.1:9 .*ray start"):
        connect(import_ray(), settings)


def test_a_study_outlives_its_driver_and_a_worker_and_is_joined_again(study, cluster):  # noqa: F811
    asked = ("--trials", "400", "--workers", "2", "--engine", "ray")
    with study(*asked) as driver:
        wait_for(lambda: search_of(study), driver)
        search = search_of(study)
        wait_for(lambda: len(workers_of(search.trials)) == 2, driver)
        driver.kill()
        driver.wait()
    n, deadline = n_ended(search), time.monotonic() + 60
    while n_ended(search) == n and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [psutil.Process(pid) for pid in workers_of(search.trials)]
    for worker in workers:
        worker.suspend()  # else all is done before somebody comes
    assert n < n_ended(search) < 400  # nobody watched, and it went on
    with study(*asked) as driver:
        lines = iter(driver.stdout.readline, "")
        assert any("still at it: joined" in line for line in lines)
        workers[0].kill()
        workers[1].resume()
        said, _ = driver.communicate(timeout=400)
        assert driver.returncode == 0
    assert "[400/400]" not in said and "Registered: models:/giaem-slices" in said
    assert n_ended(search) == 400
    check_equal(study, search)
