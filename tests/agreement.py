"""Whether Optuna and MLflow say the same of every trial of a study."""

from collections import Counter
from pathlib import Path

import optuna
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType
from optuna.trial import TrialState

from mlflow_server.connection import in_pages

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}


def assert_records_agree(
    storage: str, tracking: str, root: Path, study: str, metric: str = "f2"
) -> None:
    """Every ended trial is one run with its state, parameters, value and files; none runs, and
    nothing waits below `root` to be published."""
    search = optuna.load_study(study_name=study, storage=storage)
    trials = [one for one in search.get_trials() if one.state != TrialState.WAITING]
    runs = runs_of(tracking, study)
    numbers = Counter(int(run.data.tags["trial"]) for run in runs if "trial" in run.data.tags)
    assert numbers == Counter(trial.number for trial in trials)
    assert not [run for run in runs if run.info.status == "RUNNING"]
    by_number = {int(run.data.tags["trial"]): run for run in runs if "trial" in run.data.tags}
    client = MlflowClient(tracking, tracking)
    for trial in trials:
        run = by_number[trial.number]
        assert trial.state.is_finished()
        expected = STATUS.get(trial.state, "FAILED" if "error" in trial.user_attrs else "KILLED")
        assert (trial.number, run.info.status) == (trial.number, expected)
        assert {key: float(text) for key, text in run.data.params.items()} == trial.params
        assert run.data.tags["state"] == trial.state.name
        if trial.state == TrialState.COMPLETE:
            assert run.data.metrics[metric] == trial.value
            files = {file.path for file in client.list_artifacts(run.info.run_id, "head")}
            assert "head/predictor.json" in files and "head/head.safetensors" in files
        if trial.state == TrialState.FAIL:
            assert run.data.tags["reason"]
    assert not list((root / "studies").glob("*/trials/*"))


def runs_of(tracking: str, study: str) -> list[Run]:
    """All runs of a study but deleted ones."""
    client = MlflowClient(tracking, tracking)
    experiment = client.get_experiment_by_name(study)
    ids = [experiment.experiment_id]
    return list(in_pages(client.search_runs, ids, "", ViewType.ACTIVE_ONLY, max_results=500))
