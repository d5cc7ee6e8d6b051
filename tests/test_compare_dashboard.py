"""`dashboard` as a process: who is answered, what it says of constraints, how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from compared import Made, add_study, settings_of

from studies.__main__ import main

optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="the extra `dashboard`")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    return tmp_path


@pytest.fixture
def running(root):
    """A dashboard over a study with an infeasible trial: its process and its port."""
    add_study(Made(), settings_of(root))
    port = free_port()
    command = [sys.executable, "-m", "studies", "dashboard", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    yield process, port
    process.kill()
    process.wait()


def ask(port, path, host=None):
    request = Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host} if host else {})
    with urlopen(request, timeout=30) as answer:
        return answer.read()


@pytest.mark.slow
def test_the_dashboard_answers_here_alone_knows_constraints_and_ends_with_ctrl_c(running):
    process, port = running
    line = process.stdout.readline()
    assert re.search(rf"http://127\.0\.0\.1:{port} \(Ctrl-C stops it\)", line)
    assert b"Optuna Dashboard" in ask(port, "/dashboard")
    trials = json.loads(ask(port, "/api/studies/1"))["trials"]
    assert [trial["constraints"][0] > 0 for trial in trials] == [False, False, True]
    with pytest.raises(HTTPError, match="403"):
        ask(port, "/api/studies", host="elsewhere.example")
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 0
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", port))


def test_a_port_in_use_is_one_sentence_with_the_next_one(root, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["dashboard", "--port", str(port)]) == 2
    assert f"Port {port} is in use by another program: try `PORT={port + 1}`" in (
        capsys.readouterr().err
    )


def test_a_port_that_is_none_is_refused(root, capsys):
    assert main(["dashboard", "--port", "65536"]) == 2
    assert capsys.readouterr().err == "PORT must be at most 65535, got 65536.\n"


def test_a_dashboard_that_is_not_installed_says_how_it_is(root, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    assert main(["dashboard"]) == 2
    assert "`make dashboard` installs it" in capsys.readouterr().err
