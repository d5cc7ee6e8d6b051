"""Whole studies on a small phantom, as a user runs them: trials, runs, report, registered model."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from interrupted import INTERRUPTED
from mlflow import MlflowClient
from optuna.distributions import FloatDistribution
from optuna.pruners import ThresholdPruner
from optuna.trial import TrialState
from PIL import Image
from sqlalchemy import Engine, event

from mlflow_server import Tracking
from studies.__main__ import main
from studies.finish import conclude
from studies.publish import draw_report
from studies.runner import run
from studies.session import open_session
from studies.settings import Settings
from studies.study import Study, StudyError, find_study
from studies.trial_model import load_trial_model
from studies.trial_storage import TrialStorage
from training.data import load, phantom
from training.floors import FLOORS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A small phantom in a folder of the user's."""
    folder = tmp_path_factory.mktemp("data") / "slices"
    phantom.write(folder, n_images=120, n_groups=60)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("var")


@pytest.fixture(scope="module")
def study(images, root):
    """Runs `python -m studies run …` in this process, below one folder for the whole module."""

    def run(*arguments, server=None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VAR_DIR", str(root))
            patch.delenv("OPTUNA_STORAGE", raising=False)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            if server:
                patch.setenv("MLFLOW_TRACKING_URI", server)
            return main(["run", *arguments, "--data", str(images)])

    return run


@pytest.fixture(scope="module")
def client(root):
    uri = f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:  # MLflow writes them into the environment
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setenv("MLFLOW_REGISTRY_URI", uri)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield MlflowClient(uri, uri)


@pytest.fixture(scope="module")
def finished(study):
    """A finished GIAEM study of twelve trials."""
    assert study("giaem", "--trials", "12") == 0


def load_search(root, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{root / 'optuna.db'}")


def runs_of(client, name):
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "trial" not in run.data.tags]
    assert len(parents) == 1
    trials = {int(run.data.tags["trial"]): run for run in runs if "trial" in run.data.tags}
    assert len(trials) == len(runs) - 1
    return parents[0], trials


def test_every_trial_is_a_run_with_the_same_parameters_and_value(finished, client, root):
    parent, runs = runs_of(client, "giaem (slices)")
    trials = load_search(root, "giaem (slices)").trials
    assert sorted(runs) == [trial.number for trial in trials]
    for trial in trials:
        run = runs[trial.number]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["f2"] == trial.value
        assert {name: float(value) for name, value in run.data.params.items()} == trial.params


def test_the_parent_run_keeps_the_evidence(finished, client):
    parent, _ = runs_of(client, "giaem (slices)")
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"report.html", "study.json", "manifest.csv", "summary.md", "test_answers.csv"} <= files
    assert parent.info.status == "FINISHED"
    assert "95 % intervals" in parent.data.tags["mlflow.note.content"]
    assert {"test_f2", "test_f2_low", "test_recall", "test_auroc"} <= set(parent.data.metrics)
    assert {entry.dataset.digest for entry in parent.inputs.dataset_inputs} == {
        parent.data.tags["data_digest"]
    }


def test_answers_on_test_and_those_of_the_floors_stay_with_the_winning_trial(finished, client):
    parent, _ = runs_of(client, "giaem (slices)")
    version = client.get_model_version_by_alias("giaem-slices", "candidate")
    assert version.run_id == parent.data.tags["best_run"]
    answers = pd.read_csv(client.download_artifacts(version.run_id, "test/test_answers.csv"))
    beside = pd.read_csv(client.download_artifacts(version.run_id, "test/floor_answers.csv"))
    for _, floor in beside.groupby("floor"):
        columns = ["file", "label", "group"]
        assert floor[columns].to_numpy().tolist() == answers[columns].to_numpy().tolist()
    assert set(beside.floor) == set(FLOORS)
    assert version.tags["test_split"] == parent.data.tags["test_split"]
    assert int(parent.data.tags["test_looks"]) >= 1


def test_one_run_holds_the_weights_and_the_others_link_to_it(finished, client):
    _, runs = runs_of(client, "giaem (slices)")
    holders = [run for run in runs.values() if "detector_weights" in run.data.tags]
    assert len(holders) == 1
    holder = holders[0]
    files = {file.path for file in client.list_artifacts(holder.info.run_id, "detector")}
    assert "detector/weights.safetensors" in files
    assert len(client.get_metric_history(holder.info.run_id, "val_loss")) >= 1
    linked = {run.data.tags.get("detector_run") for run in runs.values() if run is not holder}
    assert linked == {holder.info.run_id}


def test_the_registered_model_answers_images_as_they_come(finished, client, images, root):
    model = mlflow.pyfunc.load_model("models:/giaem-slices@candidate")
    dataset = load(str(images), root=root, say=lambda _: None)
    parent, _ = runs_of(client, "giaem (slices)")
    path = client.download_artifacts(parent.info.run_id, "test_answers.csv")
    answers = pd.read_csv(path).head(5)
    assert set(answers.file) <= set(dataset.manifest.file)
    frames = [np.asarray(Image.open(images / file)) for file in answers.file]
    predicted = model.predict(frames)
    assert list(predicted.label) == list(answers.predicted)
    assert predicted.score.to_numpy() == pytest.approx(answers.score.to_numpy(), abs=1e-4)


def test_the_model_of_any_trial_is_loaded_by_its_run(finished, client, images, root):
    _, runs = runs_of(client, "giaem (slices)")
    tracking = Tracking(f"sqlite:///{root / 'mlflow' / 'mlflow.db'}", root / "mlflow/artifacts")
    frame = np.asarray(Image.open(images / "yes" / "y0.jpg"))
    for trial in load_search(root, "giaem (slices)").trials[:3]:
        predictor = load_trial_model(tracking, runs[trial.number].info.run_id)
        assert predictor.head.tumor_index == trial.params["tumor_index"]
        assert predictor.predict([frame]).shape == (1, 2)


def test_running_again_goes_on_and_trains_nothing(finished, study, client, root, capsys):
    before = len(load_search(root, "giaem (slices)").trials)
    assert study("giaem", "--trials", "3") == 0
    assert "epoch" not in capsys.readouterr().out
    assert len(load_search(root, "giaem (slices)").trials) == before + 3
    _, runs = runs_of(client, "giaem (slices)")
    assert len(runs) == before + 3


def test_a_thousand_trials_would_be_few_transactions_and_little_room(finished, study, client, root):
    databases = [root / "optuna.db", root / "mlflow" / "mlflow.db"]
    before, commits = on_disk(*databases), Counter()

    def count(connection):
        commits[Path(connection.engine.url.database).stem] += 1

    event.listen(Engine, "commit", count)
    try:
        assert study("giaem", "--trials", "40") == 0
    finally:
        event.remove(Engine, "commit", count)
    assert commits["optuna"] <= 3 * 40 + 40  # what is said at its beginning and end
    assert commits["mlflow"] <= 40 + 60
    parent, runs = runs_of(client, "giaem (slices)")
    folders = [Path(run.info.artifact_uri.removeprefix("file://")).parent for run in runs.values()]
    a_trial = median(map(on_disk, folders)) + (on_disk(*databases) - before) / 40
    assert 1000 * a_trial < 50e6  # 10 MB are left for the report, pictures and code
    holder = runs[int(parent.data.tags["best_trial"])].data.tags["detector_run"]
    key = client.get_run(holder).data.tags["detector_weights"]
    kept = [
        *root.glob(f"cache/{key}/*.safetensors"),
        *root.glob("mlflow/*/giaem_slices_/**/weights*"),
    ]
    assert len(kept) >= 3 and len({path.stat().st_ino for path in kept}) == 1


def test_what_is_published_leaves_nothing_beside_the_record(finished, root):
    folder = root / "studies" / "giaem-slices"
    kept = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert kept == {"conditions", "opening.json", "test", "trials"}
    assert not list((folder / "trials").iterdir())
    page = (root / "reports" / "giaem-slices.html").read_text()
    assert len(page) < 8e6 and "git_dirty" not in page


def on_disk(*paths):
    """The room that files and folders take, what is linked once."""
    every = {path for one in paths for path in [one, *one.rglob("*")]}
    return sum({path.stat().st_ino: path.stat().st_blocks * 512 for path in every}.values())


def test_the_test_split_is_looked_at_once_for_each_winner(finished, root):
    search = load_search(root, "giaem (slices)")
    looks = search.user_attrs["test_looks"]
    assert len(looks) == len(set(looks))
    assert looks[-1] == search.best_trial.number


def test_the_papers_split_is_a_study_of_its_own_and_says_that_it_leaks(study, client, capsys):
    assert study("giaem", "--trials", "2", "--split", "paper") == 0
    assert "This split leaks" in capsys.readouterr().out
    parent, _ = runs_of(client, "giaem (slices, paper split)")
    assert parent.data.tags["leaks"] == "true"
    assert "This split leaks" in parent.data.tags["mlflow.note.content"]


def test_a_changed_data_set_is_refused(finished, study, images, capsys):
    moved = images / "yes" / "y0.jpg"
    content = moved.read_bytes()
    moved.unlink()
    try:
        assert study("giaem", "--trials", "1") == 2
    finally:
        moved.write_bytes(content)
    assert "data.digest" in capsys.readouterr().err


def test_a_searched_detector_joins_its_hyperparameters(study, client):
    assert study("giaem", "--trials", "1", "--detector", "search") == 0
    _, runs = runs_of(client, "giaem (slices, searched detector)")
    assert {"anomaly_threshold", "latent_dim", "lr"} <= set(runs[0].data.params)


def test_a_killed_process_leaves_nothing_running_once_the_study_is_resumed(
    study, client, images, root
):
    with started(images, root, "brain_cvae", "--trials", "50"):
        wait_for(lambda: has_running_trial(root, "brain_cvae (slices)"))
    assert study("brain_cvae", "--trials", "1") == 0
    search = load_search(root, "brain_cvae (slices)")
    assert not search.get_trials(states=(TrialState.RUNNING,))
    _, runs = runs_of(client, "brain_cvae (slices)")
    assert sorted(runs) == [trial.number for trial in search.trials]
    for trial in search.get_trials(states=(TrialState.FAIL,)):
        assert runs[trial.number].info.status == "KILLED"
        assert runs[trial.number].data.tags["reason"] == "its process died"
    assert "RUNNING" not in {run.info.status for run in runs.values()}


def test_ctrl_c_ends_the_trial_as_killed_and_still_draws_the_report(client, images, root):
    with started(images, root, "image_kmeans", "--trials", "5000") as process:
        wait_for(lambda: n_complete(root, "image_kmeans (slices)") >= 3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) in INTERRUPTED
    assert (root / "reports" / "image_kmeans-slices.html").exists()
    parent, runs = runs_of(client, "image_kmeans (slices)")
    assert parent.info.status == "KILLED"
    search = load_search(root, "image_kmeans (slices)")
    assert not search.get_trials(states=(TrialState.RUNNING,))
    for trial in search.get_trials(states=(TrialState.FAIL,)):
        assert runs[trial.number].info.status == "KILLED"


def test_a_tracking_server_that_is_away_is_told_by_the_next_run(study, client, capsys):
    arguments = ("giaem", "--trials", "2", "--label", "away")
    assert study(*arguments, server="http://127.0.0.1:9") == 0
    said = capsys.readouterr().out
    assert "The search goes on without it" in said and "Report:" in said
    name = "giaem (slices, away)"
    assert client.get_experiment_by_name(name) is None
    assert study(*arguments) == 0
    _, runs = runs_of(client, name)
    assert sorted(runs) == [0, 1, 2, 3]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for published in runs.values():
        assert client.list_artifacts(published.info.run_id, "head")


def odd_study(name, fit, **changes):
    """A study of one parameter whose trials do what the test wants."""
    score = find_study("giaem").score
    space = {"x": FloatDistribution(0, 1)}
    return Study(
        name=name, doc="Odd.", space=space, fit=fit, score=score, conclude=conclude, **changes
    )


def settings_for(root, images):
    uri = f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
    return Settings(root, f"sqlite:///{root / 'optuna.db'}", uri, data=str(images), trials=20)


def test_an_interrupt_that_python_drops_ends_the_study_after_its_trial(images, root):
    def fit(params, lab, news):
        class Dropped:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)  # the signal is taken here, and its exception dropped

        Dropped()
        return find_study("image_kmeans").fit({"tumor_index": params["x"]}, lab, news)

    settings = settings_for(root, images)
    assert run(odd_study("dropped", fit), settings) is False
    assert len(load_search(root, "dropped (slices)").trials) == 1


def test_an_interrupt_while_a_trial_is_written_down_leaves_it_whole(images, root, monkeypatch):
    written = TrialStorage.set_trial_state_values

    def interrupted(*arguments, **keywords):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        return written(*arguments, **keywords)

    def fit(params, lab, news):
        monkeypatch.setattr(TrialStorage, "set_trial_state_values", interrupted)
        return find_study("image_kmeans").fit({"tumor_index": params["x"]}, lab, news)

    assert run(odd_study("written", fit), settings_for(root, images)) is False
    trials = load_search(root, "written (slices)").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE]


def test_failed_trials_keep_their_traceback_and_the_same_error_ends_the_study(images, root, client):
    def fit(params, lab, news):
        raise ValueError("x is odd")

    with pytest.raises(StudyError, match=r"The last 5 trials failed .* ValueError: x is odd"):
        run(odd_study("failing", fit), settings_for(root, images))
    parent, runs = runs_of(client, "failing (slices)")
    assert [run.info.status for run in runs.values()] == ["FAILED"] * 5
    assert runs[0].data.tags["reason"] == "ValueError: x is odd"
    traceback = client.download_artifacts(runs[0].info.run_id, "traceback.txt")
    assert "in fit" in Path(traceback).read_text()
    assert "No trial can win" in parent.data.tags["mlflow.note.content"]


def test_pruned_trials_are_killed_runs_and_a_study_of_nothing_else_ends_in_words(
    images, root, client
):
    def fit(params, lab, news):
        news.on_epoch(1, {"val_auroc": 0.1})

    study = odd_study("pruned", fit, pruner=ThresholdPruner(lower=0.5), reported="val_auroc")
    assert run(study, settings_for(root, images))
    parent, runs = runs_of(client, "pruned (slices)")
    assert [run.info.status for run in runs.values()] == ["KILLED"] * 20
    assert {run.data.tags["state"] for run in runs.values()} == {"PRUNED"}
    assert "No trial can win" in parent.data.tags["mlflow.note.content"]


def test_a_study_without_a_feasible_trial_touches_no_test_image(images, root, study):
    settings = Settings(root, "", "", data=str(images))
    session = open_session(find_study("giaem"), settings, say=lambda _: None)
    search = optuna.create_study(direction="maximize")
    conclusion = conclude(session, search)
    assert conclusion.winner is None and conclusion.best is None
    assert "test_looks" not in search.user_attrs
    report = draw_report(session, search, conclusion)
    assert "No trial can win" in report.read_text()


@contextmanager
def started(images, root, *arguments):
    """A study in a process of its own, which is killed (`kill -9`) on the way out."""
    command = [sys.executable, "-m", "studies", "run", *arguments, "--data", str(images)]
    environment = {**os.environ, "VAR_DIR": str(root)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def trials_in(root, name, *states):
    storage = f"sqlite:///{root / 'optuna.db'}"
    if name not in optuna.get_all_study_names(storage):
        return []
    return optuna.load_study(study_name=name, storage=storage).get_trials(states=states)


def has_running_trial(root, name):
    return bool(trials_in(root, name, TrialState.RUNNING))


def n_complete(root, name):
    return len(trials_in(root, name, TrialState.COMPLETE))
