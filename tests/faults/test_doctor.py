"""`make doctor` on places that are well and ill."""

import io
import sqlite3
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
from cheap import cheap_study
from houses import assert_agree
from optuna.trial import TrialState

from mlflow_server import Tracking
from studies.runner import run
from studies.settings import Settings
from studies.storage import searches
from studies.upkeep import doctor
from studies.upkeep.doctor import examine
from studies.upkeep.sync import sync
from studies.worker import WORKER, this_worker

pytestmark = pytest.mark.slow
DEAD = {**this_worker(), "started": 0.0}


@pytest.fixture
def settings(house):
    """A study of four trials, which has ended."""
    settings = Settings(house.root, house.storage, house.tracking)
    asked = replace(settings, data=str(house.images), trials=4, device="cpu")
    with redirect_stdout(io.StringIO()):
        assert run(cheap_study(0.0), asked)
    return settings


def ill(settings, capsys):
    """The findings that are to be cured, and the exit status."""
    is_well = examine(settings)
    lines = capsys.readouterr().out.splitlines()
    cures = [line for line in lines if line.startswith("    cure: ")]
    found = [line for line in lines if line.startswith("!!")]
    assert len(cures) == len(found) and is_well == (not found)
    return [line for line in found if "packages" not in line]


def test_a_place_without_studies_is_well_and_stays_empty(tmp_path, capsys):
    settings = Settings(
        tmp_path / "var", f"sqlite:///{tmp_path}/var/o.db", f"sqlite:///{tmp_path}/var/m.db"
    )
    assert ill(settings, capsys) == []
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_worker_left_is_found_and_cured_by_sync(settings, house, capsys):
    assert ill(settings, capsys) == []
    (search,) = searches(settings.storage_url)
    trial = search.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr(WORKER, DEAD)
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    experiment = tracking.experiments.ids()[search.study_name]
    parent = tracking.find_study(experiment, search.study_name)
    tracking.add_run(
        experiment,
        "left",
        tags={"study": search.study_name, "trial": "4", "mlflow.parentRunId": parent},
    )
    folder = settings.artifact_root / "cheap_slices_" / ("ab" * 16)
    folder.mkdir(parents=True)
    found = ill(settings, capsys)
    assert any("1 RUNNING without a process: 4" in line for line in found)
    assert any("never heard of" in line for line in found)
    folder.rmdir()
    assert sync(settings)
    assert ill(settings, capsys) == []
    assert not house.trials(TrialState.RUNNING)
    assert_agree(house)


def test_a_server_that_is_away_is_found(settings, capsys):
    found = ill(replace(settings, tracking_uri="http://127.0.0.1:9"), capsys)
    assert any("No MLflow server answers" in line for line in found)


def test_a_database_of_another_version_is_found(settings, house, capsys):
    with sqlite3.connect(house.root / "optuna.db") as database:
        database.execute("update alembic_version set version_num = 'v99'")
    assert any("optuna storage upgrade" in line for line in ill(settings, capsys))


def test_a_disk_that_is_nearly_full_is_found(settings, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "FULL", 10**18)
    assert any("disk" in line for line in ill(settings, capsys))
