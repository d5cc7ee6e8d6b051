"""Several workers of one study: how they are called, and whole studies that they run."""

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import optuna
import psutil
import pytest
import yaml
from agreement import assert_records_agree
from interrupted import INTERRUPTED

from studies.__main__ import main, parser
from studies.commands.arguments import settings_from
from studies.session import Session
from studies.settings import Settings
from studies.storage import budget_of, n_ended, open_storage
from studies.study import StudyError, find_study
from studies.worker import WORKER
from studies.workers.call import places, shares_of_gpus, worker_arguments
from studies.workers.on_ray import cpus_for
from studies.workers.watch import check_crew, has_crew

ROOT = Path(__file__).parent.parent
SERVER = "postgresql://me:secret@db/trials"


def settings_of(root=Path(), storage=SERVER, **changes):
    return Settings(root, storage, "http://127.0.0.1:5000", **changes)


def test_a_worker_is_called_with_what_its_study_was_begun_with(tmp_path, monkeypatch):
    changes = {
        "data": str(tmp_path),
        "split": "paper",
        "seed": 3,
        "label": "two words",
        "timeout": 60.0,
        "gpu_share": 0.25,
        "device": "cpu",
    }
    begun = settings_of(tmp_path, **changes)
    session = Session(find_study("giaem"), begun, None, "giaem", None)
    for name, value in places(session).items():
        monkeypatch.setenv(name, value)
    arguments = worker_arguments(session)
    called = settings_from(parser(arguments).parse_args(arguments))
    assert called == begun
    assert {field.name for field in fields(Settings)} >= set(changes)
    assert "secret" not in " ".join(arguments)  # whoever lists processes would see it


def test_one_worker_of_this_machine_is_the_process_itself():
    assert not has_crew(settings_of())
    assert has_crew(settings_of(workers=2)) and has_crew(settings_of(engine="ray"))


def test_sqlite_is_for_a_few_workers_of_one_machine():
    check_crew(settings_of(storage="sqlite:///trials.db", workers=8))
    check_crew(settings_of(workers=64, engine="ray", ray_address="auto"))
    with pytest.raises(StudyError, match=r"not for WORKERS=9: set OPTUNA_STORAGE=postgresql://"):
        check_crew(settings_of(storage="sqlite:///trials.db", workers=9))
    with pytest.raises(StudyError, match="not for other machines"):
        address = {"engine": "ray", "ray_address": "auto"}
        check_crew(settings_of(storage="sqlite:///trials.db", workers=2, **address))
    check_crew(settings_of(storage="sqlite:///trials.db", ray_address="auto"))


def test_an_unknown_engine_lists_the_known_ones(capsys):
    assert main(["run", "giaem", "--engine", "dask"]) == 2
    assert capsys.readouterr().err == ("ENGINE must be one of local, ray, elsewhere, got 'dask'.\n")


@pytest.mark.parametrize("share", ["0", "1.5", "half"])
def test_a_share_of_a_gpu_that_is_none_is_refused(share, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "giaem", f"--gpu-share={share}"])
    assert caught.value.code == 2
    assert "GPU_SHARE must be" in capsys.readouterr().err


def test_workers_are_spread_over_the_gpus():
    named = [one["CUDA_VISIBLE_DEVICES"] for one in shares_of_gpus(5, ["0", "GPU-a"])]
    assert named == ["0", "GPU-a", "0", "GPU-a", "0"]
    assert shares_of_gpus(2, []) == [{}, {}]


@pytest.mark.parametrize(
    ("n_workers", "nodes", "n_cpus"),
    [(4, [16], 4), (16, [8, 8], 1), (3, [8, 4], 4), (40, [8], 1), (2, [], 1), (1, [8, 2], 8)],
)
def test_workers_on_a_cluster_share_its_processors(n_workers, nodes, n_cpus):
    assert cpus_for(n_workers, nodes) == n_cpus


def test_the_composed_tracking_server_is_called_as_the_program_understands():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    tracking, postgres = services["tracking"], services["postgres"]
    arguments = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", one) for one in tracking["command"]]
    options = parser(arguments).parse_args(arguments)
    assert options.auth and options.host == "0.0.0.0"
    assert options.allowed_hosts == "localhost:5000"
    user = postgres["environment"]["POSTGRES_USER"]
    for variable, database in [("OPTUNA_STORAGE", "optuna"), ("MLFLOW_TRACKING_URI", "mlflow")]:
        address = urlsplit(tracking["environment"][variable].replace("${POSTGRES_PASSWORD}", "p"))
        assert (address.scheme, address.username, address.hostname) == (
            "postgresql",
            user,
            "postgres",
        )
        assert address.path == f"/{database}"


@pytest.fixture
def study(slices, tmp_path, postgres, monkeypatch):
    """A function that starts `python -m studies run giaem …` over two databases on PostgreSQL."""
    name = f"w{abs(hash(tmp_path)) % 10**9}"
    addresses = {
        "OPTUNA_STORAGE": postgres(f"optuna_{name}"),
        "MLFLOW_TRACKING_URI": postgres(f"mlflow_{name}"),
        "VAR_DIR": str(tmp_path),
    }
    for variable, value in addresses.items():
        monkeypatch.setenv(variable, value)

    @contextmanager
    def start(*arguments):
        options = ["--data", str(slices), "--device", "cpu"]
        command = [sys.executable, "-m", "studies", "run", "giaem", *options, *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            if process.poll() is None:
                for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                    one.kill()
            process.communicate()

    start.storage, start.tracking = addresses["OPTUNA_STORAGE"], addresses["MLFLOW_TRACKING_URI"]
    start.root = tmp_path
    return start


def wait_for(condition, process, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def search_of(study):
    """The study, once it was begun."""
    storage = open_storage(study.storage)
    names = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=names[0], storage=storage) if names else None


def workers_of(trials):
    """The processes that ran them."""
    return {trial.user_attrs[WORKER]["pid"] for trial in trials if WORKER in trial.user_attrs}


@pytest.mark.slow
def test_a_killed_worker_is_missed_by_nobody_and_ctrl_c_ends_the_others(study):
    with study("--trials", "2000", "--workers", "2") as process:
        wait_for(lambda: search_of(study), process)
        search = search_of(study)
        wait_for(lambda: len(workers_of(search.trials)) == 2, process)
        victim, other = workers_of(search.trials)
        psutil.Process(victim).kill()
        n = len(search.trials)
        wait_for(lambda: len(search.trials) > n + 5, process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=300)
        assert process.returncode in INTERRUPTED
    assert not psutil.pid_exists(other)
    assert "[5/2000]" in said and "Stopped." in said and "Report:" in said
    assert budget_of(search) <= n_ended(search) < 2000  # those that ran may still have ended
    assert_records_agree(study.storage, study.tracking, study.root, search.study_name)
    assert "killed" in said.lower() or "SIGKILL" in said
