import os
import subprocess
import sys

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from studies.sampler import BranchTPE, sampler_of
from studies.space import Capped, When, suggest
from studies.storage import (
    begun,
    best_feasible,
    fail_dead_trials,
    open_storage,
    open_study,
)
from studies.study import StudyError
from studies.worker import WORKER, is_alive, this_worker

SPACE = {"alpha": FloatDistribution(0, 1)}
BRANCHES = {
    "detector": CategoricalDistribution(["a", "b", "c"]),
    "smoothing": FloatDistribution(0, 1),
    **{
        f"{name}_{axis}": When(FloatDistribution(0, 1), "detector", (name,))
        for name in "abc"
        for axis in "xy"
    },
}
SPECIFICATION = {"space": {"alpha": [0, 1]}, "data": {"digest": "abc"}}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def open_again(url, specification=SPECIFICATION, seed=0, space=SPACE):
    return open_study(
        open_storage(url),
        "giaem",
        specification,
        space=space,
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


def ridge(trial):
    """Best on the ridge x = y of branch c, at 0.7, with a smoothing of 0.3: 1 there, else 0.8."""
    params = suggest(trial, BRANCHES)
    name = params["detector"]
    x, y = params[f"{name}_x"], params[f"{name}_y"]
    top = 1.0 if name == "c" else 0.8
    return top - abs(x - y) - 0.3 * abs(x - 0.7) - 0.2 * abs(params["smoothing"] - 0.3)


def test_a_flat_space_is_drawn_by_plain_tpe_and_a_conditional_one_by_branch(url):
    assert not isinstance(open_again(url).sampler, BranchTPE)
    assert isinstance(open_again(url, space=BRANCHES).sampler, BranchTPE)


def test_the_parameters_of_a_branch_are_drawn_together():
    study = optuna.create_study(direction="maximize", sampler=sampler_of(BRANCHES, seed=0))
    study.optimize(ridge, n_trials=30)
    trial = study.ask()
    assert set(trial.relative_params) == set(BRANCHES)
    flat = optuna.samplers.TPESampler(seed=0).infer_relative_search_space(study, None)
    assert set(flat) == {"detector", "smoothing"}


def test_the_best_branch_is_found_in_60_trials():
    study = optuna.create_study(direction="maximize", sampler=sampler_of(BRANCHES, seed=0))
    study.optimize(ridge, n_trials=60)
    late = [trial.params["detector"] for trial in study.trials[40:]]
    assert study.best_params["detector"] == "c"
    assert late.count("c") > 12  # of 20; by chance 6 or 7
    assert study.best_value > 0.9


def test_a_capped_parameter_is_not_held_in_the_range_of_its_first_trial():
    space = {
        "kind": CategoricalDistribution(["small", "large"]),
        "n": Capped(IntDistribution(1, 100), lambda c: 10 if c["kind"] == "small" else 100),
        "x": When(FloatDistribution(0, 1), "kind", ("large",)),
    }
    study = optuna.create_study(direction="maximize", sampler=sampler_of(space, seed=0))
    study.enqueue_trial({"kind": "small", "n": 5})
    study.optimize(lambda trial: suggest(trial, space)["n"], n_trials=40)
    assert sum(trial.params["n"] > 10 for trial in study.trials[20:]) > 10


def test_the_sampler_of_branches_warns_of_nothing(recwarn):
    sampler_of(BRANCHES, seed=0)
    assert not recwarn.list


def test_a_trial_that_waits_has_not_begun():
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    study.enqueue_trial({"x": 0.7})
    study.ask()
    assert [trial.number for trial in begun(study)] == [0]
