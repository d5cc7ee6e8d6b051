"""`make ui` as a process: ready, one per port, and nothing left behind when it is stopped."""

import os
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from mlflow_server import Tracking, TrackingError, TrialRun, local_artifacts, local_uri
from mlflow_server.server import compare_url, run_url, runs_url, serve

BASE = "http://127.0.0.1:5000"
NOT_GENAI = {"workflowType": ["machine_learning"]}

SERVE = """
import sys
from pathlib import Path
from mlflow_server import local_artifacts, local_uri
from mlflow_server.server import runs_url, serve
root, port = Path(sys.argv[1]), int(sys.argv[2])
serve(
    local_uri(root),
    local_artifacts(root),
    port=port,
    links=lambda base: ["link: " + runs_url(base, "0")],
    say=lambda line: print(line, flush=True),
)
"""


def fragment(url):
    """The part of an address that the UI reads itself: its page, and what is asked of it."""
    asked = urlsplit(urlsplit(url).fragment)
    return asked.path, parse_qs(asked.query)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(root, port):
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, str(root), str(port)], stdout=subprocess.PIPE, text=True
    )


def wait_for(process, start_of_line):
    for line in process.stdout:
        if line.startswith(start_of_line):
            return line.strip()
    raise AssertionError(f"ended without a line that starts with {start_of_line!r}")


def test_the_link_to_an_experiment_opens_on_the_runs_table():
    assert fragment(runs_url(BASE, "7")) == ("/experiments/7/runs", NOT_GENAI)
    shared = {"viewStateShareKey": ["giaem"], **NOT_GENAI}
    assert fragment(runs_url(BASE, "7", view="giaem")) == ("/experiments/7/runs", shared)
    assert fragment(run_url(BASE, "7", "ab")) == ("/experiments/7/runs/ab", NOT_GENAI)


def test_the_link_to_a_comparison_holds_the_runs_as_encoded_json():
    url = compare_url(BASE, ["ab", "cd"], ["7"])
    asked = {"runs": ['["ab","cd"]'], "experiments": ['["7"]'], **NOT_GENAI}
    assert fragment(url) == ("/compare-runs", asked)
    assert not set('"[], ') & set(url)


@pytest.mark.slow
def test_a_port_in_use_is_said_with_the_next_one_to_try(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(TrackingError, match=f"Port {port} is in use.*PORT={port + 1}"):
            serve(local_uri(tmp_path), local_artifacts(tmp_path), port=port, links=lambda base: [])


def test_a_server_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(TrackingError, match="No MLflow server answers"):
        serve("http://127.0.0.1:9", tmp_path, links=lambda base: [])


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A server over a new database: its root, its port and its process."""
    root, port = tmp_path_factory.mktemp("server"), free_port()
    process = start(root, port)
    wait_for(process, "link: ")
    yield root, port, process
    process.terminate()
    process.wait(timeout=30)


@pytest.mark.slow
def test_a_second_server_on_the_same_database_says_that_one_runs(running):
    root, port, _ = running
    said = []
    serve(
        local_uri(root),
        local_artifacts(root),
        port=port,
        links=lambda base: [base],
        say=said.append,
    )
    assert said == [f"MLflow runs already: http://127.0.0.1:{port}", f"http://127.0.0.1:{port}"]


@pytest.mark.slow
def test_a_server_on_another_database_is_another_program(running, tmp_path):
    _, port, _ = running
    with pytest.raises(TrackingError, match="in use"):
        serve(local_uri(tmp_path), local_artifacts(tmp_path), port=port, links=lambda base: [])


@pytest.mark.slow
def test_a_trial_is_recorded_over_http_and_seen_in_the_database(running, tmp_path):
    root, port, _ = running
    (tmp_path / "grid.txt").write_text("a picture")
    over_http = Tracking(f"http://127.0.0.1:{port}", tmp_path / "unused")
    experiment = over_http.experiments.open("over http", note="", tags={})
    parent = over_http.open_study(experiment, "giaem", params={}, tags={}, datasets=[])
    trial = TrialRun(
        "giaem", 1, "trial 1", "KILLED", 1_000, 2_000, metrics={"f2": 0.5}, artifacts=tmp_path
    )
    run_id = over_http.publish_trial(experiment, parent, trial)
    direct = Tracking(local_uri(root), local_artifacts(root))
    assert direct.published_trials(experiment, "giaem") == {1: (run_id, "KILLED")}
    copy = over_http.download(run_id, "grid.txt", tmp_path / "copies")
    assert copy.read_text() == "a picture"
    assert list(local_artifacts(root).rglob("grid.txt"))


@pytest.mark.slow
@pytest.mark.parametrize("wish", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_is_stopped_leaves_no_process_and_a_free_port(tmp_path, wish):
    port = free_port()
    process = start(tmp_path, port)
    wait_for(process, "link: ")
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, wish)
    assert process.wait(timeout=30) == 0
    assert len(children) >= 2
    assert not [child for child in children if child.is_running()]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


@pytest.mark.slow
def test_a_server_stopped_while_it_starts_leaves_no_process(tmp_path):
    process = start(tmp_path, free_port())
    wait_for(process, "MLflow starts")
    time.sleep(1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert children and not [child for child in children if child.is_running()]
