"""What one trial may die of, and what the study makes of it."""

import errno
from dataclasses import replace

import pytest
import torch
from houses import assert_agree
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from studies.finish import conclude
from studies.opening import open_runs, read_opening
from studies.runner import run
from studies.settings import Settings
from studies.storage import fail_dead_trials, searches
from studies.study import Study, StudyError, find_study
from studies.upkeep.sync import rest, sync
from studies.worker import WORKER, this_worker
from training.cache import CacheError

pytestmark = pytest.mark.slow
CHEAP = {"latent_dim": 4, "n_epochs": 1}


def study_of(name, fit):
    giaem = find_study("giaem")
    return Study(
        name=name,
        doc="Odd.",
        space={"x": FloatDistribution(0, 1)},
        fit=fit,
        score=giaem.score,
        conclude=conclude,
    )


def settings_of(house, n_trials=6):
    return Settings(
        house.root, house.storage, house.tracking, data=str(house.images), trials=n_trials
    )


def fitted(params, lab, news):
    return find_study("giaem").fit({"anomaly_threshold": params["x"], **CHEAP}, lab, news)


def test_out_of_memory_is_tried_once_more_with_half_the_batch_and_written_down(house):
    sizes = []

    def fit(params, lab, news):
        candidate = fitted(params, lab, news)
        batch_size = candidate.detector.spec.hyperparameters["batch_size"]
        sizes.append(batch_size)
        if len(sizes) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return candidate

    assert run(study_of("odd", fit), settings_of(house, 2))
    assert sizes[1] == sizes[0] // 2 and sizes[2] == sizes[0]
    name = "odd (slices)"
    first, second = house.trials(name=name)
    assert (first.state, second.state) == (TrialState.COMPLETE,) * 2
    assert "half" in first.user_attrs["batches"] and "batches" not in second.user_attrs
    runs = {run.data.tags.get("trial"): run for run in house.runs(name)}
    assert "half" in runs["0"].data.tags["batches"]
    assert_agree(house, name)


def test_out_of_memory_each_time_is_one_error_that_ends_the_study(house):
    tries = []

    def fit(params, lab, news):
        tries.append(lab.batches)
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(tries)} GiB.")

    with pytest.raises(StudyError, match=r"The last 5 trials failed .* too little memory on cpu"):
        run(study_of("odd", fit), settings_of(house, 20))
    assert tries == [1.0, 0.5] * 5
    assert_agree(house, "odd (slices)")


def test_a_study_goes_on_after_errors_that_differ_or_do_not_follow_one_another(house):
    n = []

    def fit(params, lab, news):
        n.append(0)
        if len(n) % 5:
            raise ValueError("the same")
        return fitted(params, lab, news)

    assert run(study_of("odd", fit), settings_of(house, 10))
    states = [trial.state.name for trial in house.trials(name="odd (slices)")]
    assert states == (["FAIL"] * 4 + ["COMPLETE"]) * 2
    assert_agree(house, "odd (slices)")


def test_a_full_disk_ends_the_study_in_a_sentence_and_the_trial_is_tried_again(house):
    is_full = [True]

    def fit(params, lab, news):
        candidate = fitted(params, lab, news)
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return candidate

    with pytest.raises(CacheError, match=r"The disk is full.*`make gc`"):
        run(study_of("odd", fit), settings_of(house, 2))
    (stopped,) = house.trials(name="odd (slices)")
    assert stopped.user_attrs["interrupted"] == "the disk was full"
    is_full.clear()
    assert run(study_of("odd", fit), settings_of(house, 2))
    trials = house.trials(name="odd (slices)")
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[1].params == stopped.params
    assert_agree(house, "odd (slices)")
    runs = {run.data.tags.get("trial"): run.data.tags for run in house.runs("odd (slices)")}
    assert runs["1"]["retry_of"] == "0"


def test_a_study_whose_record_was_never_opened_is_synchronised_from_its_folder(house):
    away = replace(settings_of(house, 3), tracking_uri="http://127.0.0.1:9")
    assert run(study_of("odd", fitted), away)
    assert sync(settings_of(house))
    assert_agree(house, "odd (slices)")
    (parent,) = [run for run in house.runs("odd (slices)") if "trial" not in run.data.tags]
    assert parent.info.status == "FINISHED"


def test_a_run_that_a_dead_worker_had_opened_is_ended_by_one_that_never_heard_of_it(house):
    assert run(study_of("odd", fitted), settings_of(house, 2))
    opening = read_opening(house.root / "studies" / "odd-slices")
    record = open_runs(opening, settings_of(house), living=(), before=2)
    (search,) = searches(house.storage)
    trial = search.ask()
    trial.suggest_float("x", 0, 1)
    trial.set_user_attr(WORKER, {**this_worker(), "started": 0.0})
    tags = {"study": "odd (slices)", "trial": "2", "mlflow.parentRunId": record.parent_id}
    record.tracking.add_run(record.experiment_id, "opened", tags=tags)
    fail_dead_trials(search)
    record.write([search.trials[2]])
    rest(record, "FINISHED")
    assert_agree(house, "odd (slices)")
