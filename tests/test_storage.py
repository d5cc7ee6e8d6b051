import os
import subprocess
import sys

import optuna
import pytest
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from studies.storage import (
    WORKER,
    best_feasible,
    fail_dead_trials,
    is_alive,
    open_storage,
    open_study,
    this_worker,
)
from studies.study import StudyError

SPECIFICATION = {"space": {"alpha": [0, 1]}, "data": {"digest": "abc"}}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def open_again(url, specification=SPECIFICATION, seed=0):
    return open_study(
        open_storage(url),
        "giaem",
        specification,
        direction="maximize",
        pruner=NopPruner(),
        seed=seed,
    )


def test_a_study_goes_on_with_its_trials(url):
    open_again(url).optimize(lambda trial: trial.suggest_float("alpha", 0, 1), n_trials=2)
    assert len(open_again(url).trials) == 2


def test_a_resumed_study_does_not_replay_its_draws(url):
    for _ in range(2):
        open_again(url).optimize(lambda trial: trial.suggest_float("alpha", 0, 1), n_trials=3)
    values = [trial.value for trial in open_again(url).trials]
    assert len(set(values)) == 6


def test_a_changed_specification_is_refused_with_the_difference(url):
    open_again(url)
    with pytest.raises(StudyError) as refused:
        open_again(url, {"space": {"alpha": [0, 2]}, "data": {"digest": "abc"}})
    assert "space.alpha: [0, 1] -> [0, 2]" in str(refused.value)
    assert "digest" not in str(refused.value)
    assert "LABEL=" in str(refused.value)


def test_a_parameter_that_is_new_or_gone_is_a_difference(url):
    open_again(url)
    with pytest.raises(StudyError, match=r"data.digest: \"abc\" -> -"):
        open_again(url, {"space": {"alpha": [0, 1]}, "data": {}})


def test_a_file_that_is_no_database_is_one_sentence_with_the_cure(tmp_path):
    (tmp_path / "optuna.db").write_text("not a database, by far longer than a header" * 10)
    with pytest.raises(StudyError, match="move it away to start anew"):
        open_storage(f"sqlite:///{tmp_path / 'optuna.db'}")


def test_a_database_of_another_version_is_one_sentence_with_the_cure(url, tmp_path):
    open_again(url)
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
    code += "c.execute(\"update alembic_version set version_num = 'v99'\"); c.commit()"
    subprocess.run([sys.executable, "-c", code, tmp_path / "optuna.db"], check=True)
    with pytest.raises(StudyError, match="optuna storage upgrade"):
        open_storage(url)


def test_this_process_is_alive_and_an_ended_one_is_not():
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    assert is_alive(this_worker())
    assert not is_alive({**this_worker(), "pid": ended.pid})


def test_a_later_process_with_the_same_number_is_another_worker():
    assert not is_alive({**this_worker(), "started": this_worker()["started"] - 100})


def test_a_worker_on_another_machine_is_taken_to_be_alive():
    assert is_alive({"host": "elsewhere", "pid": os.getpid(), "started": 0.0})


def test_only_the_trials_of_dead_processes_are_failed(url):
    study = open_again(url)
    living, dead = study.ask(), study.ask()
    living.set_user_attr(WORKER, this_worker())
    dead.set_user_attr(WORKER, {**this_worker(), "started": 0.0})
    assert fail_dead_trials(study) == [dead.number]
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]


def test_the_best_trial_keeps_the_constraints():
    study = optuna.create_study(direction="maximize")
    assert best_feasible(study) is None
    for value, violation in ((0.9, 0.5), (0.4, 0.0), (0.6, -0.1)):
        trial = study.ask()
        trial.set_constraint("specificity", violation)
        study.tell(trial, value)
    assert best_feasible(study).value == 0.6


def test_without_a_feasible_trial_there_is_no_best():
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.set_constraint("specificity", 0.5)
    study.tell(trial, 1.0)
    assert best_feasible(study) is None
