"""Workers as Ray tasks on a real cluster of this machine, over PostgreSQL."""

import time
from pathlib import Path

import psutil
import pytest
from agreement import assert_records_agree
from ray_cluster import ray_cluster
from test_workers import search_of, study, wait_for, workers_of  # noqa: F401

from studies.settings import Settings
from studies.storage import n_ended
from studies.study import StudyError
from studies.workers.on_ray import connect, import_ray

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A Ray of two processors that lives apart from any driver; RAY_ADDRESS names it."""
    pytest.importorskip("ray")
    with ray_cluster(tmp_path) as named:
        for name, value in named.items():
            monkeypatch.setenv(name, value)
        yield named["RAY_ADDRESS"]


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
    assert_records_agree(study.storage, study.tracking, study.root, search.study_name)
