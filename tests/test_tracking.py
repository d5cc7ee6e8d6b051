"""The record in a real SQLite file: nothing doubled, nothing left RUNNING, errors with a cure."""

import json
import math
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest
from mlflow import MlflowClient
from sqlalchemy import event

from mlflow_server import (
    DatasetUse,
    Tracking,
    TrackingError,
    TrialRun,
    local_artifacts,
    local_uri,
)
from mlflow_server.connection import SERVER_ANSWERS_WITHIN
from mlflow_server.experiments import view_key
from mlflow_server.files import place, share

TRIAL = TrialRun(
    study="giaem",
    trial=7,
    name="trial 7",
    status="FINISHED",
    start_ms=1_000_000,
    end_ms=1_004_000,
    params={"anomaly_threshold": 0.3},
    metrics={"f2": 0.7},
    history=[{"train_loss": 3.0}, {"train_loss": 2.0}, {"train_loss": 1.0}],
    tags={"detector": "abc"},
    note="**seven**",
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("a folder with spaces")


@pytest.fixture(scope="module")
def uri(root):
    return local_uri(root)


@pytest.fixture(scope="module")
def client(uri, tracking):
    return MlflowClient(uri)


@pytest.fixture(scope="module")
def tracking(root, uri):
    tracking = Tracking(uri, local_artifacts(root))
    yield tracking
    tracking.close()


@pytest.fixture
def experiment(tracking, request):
    return tracking.experiments.open(request.node.name, note="tests", tags={"data": "phantom"})


@pytest.fixture
def parent(tracking, experiment):
    return tracking.open_study(experiment, "giaem", params={}, tags={}, datasets=[])


def all_runs(client, experiment):
    return client.search_runs([experiment])


def test_an_experiment_is_made_once_and_opens_on_the_runs_table(tracking, client, experiment, root):
    again = tracking.experiments.open(client.get_experiment(experiment).name, note="other", tags={})
    found = client.get_experiment(experiment)
    assert again == experiment
    assert found.tags["mlflow.experimentKind"] == "custom_model_development"
    assert found.tags["mlflow.note.content"] == "tests"
    assert found.tags["data"] == "phantom"
    assert found.artifact_location.startswith(local_artifacts(root).as_uri())


def test_an_experiment_deleted_in_the_ui_is_restored(tracking, client, experiment):
    client.delete_experiment(experiment)
    name = client.get_experiment(experiment).name
    assert tracking.experiments.open(name, note="", tags={}) == experiment
    assert client.get_experiment(experiment).lifecycle_stage == "active"


def test_a_shared_view_lists_the_trials_of_one_study_best_first(tracking, client, experiment):
    columns = {"metrics": ["f2", "recall"], "params": ["alpha"], "tags": {"feasible": "true"}}
    tracking.experiments.share_view(experiment, "it's mine", **columns, direction="maximize")
    view = json.loads(client.get_experiment(experiment).tags["mlflow.sharedViewState.it_s_mine"])
    assert view_key("it's mine") == "it_s_mine"
    assert view["searchFilter"] == (
        "tags.study = \"it's mine\" AND tags.trial IS NOT NULL AND tags.feasible = 'true'"
    )
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`f2`", False)
    assert view["selectedColumns"] == ["metrics.`f2`", "metrics.`recall`", "params.`alpha`"]
    tracking.experiments.share_view(experiment, "theirs", **columns, direction="minimize")
    view = json.loads(client.get_experiment(experiment).tags["mlflow.sharedViewState.theirs"])
    assert view["orderByAsc"] is True


def test_a_study_is_one_parent_run_however_often_it_is_opened(tracking, client, experiment):
    opened = {"params": {"seed": 0}, "tags": {"device": "cpu"}, "datasets": []}
    run_id = tracking.open_study(experiment, "giaem", **opened)
    tracking.close_study(run_id, status="FINISHED", metrics={"f2": 0.5}, tags={}, note="# Done")
    closed = client.get_run(run_id)
    client.create_run(experiment, tags={"study": "giaem", "trial": "0"})
    assert tracking.open_study(experiment, "giaem", **opened) == run_id
    assert tracking.open_study(experiment, "dbscan", **opened) != run_id
    assert closed.info.status == "FINISHED"
    assert closed.data.tags["mlflow.note.content"] == "# Done"
    assert closed.data.metrics == {"f2": 0.5}
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_parent_run_shows_which_images_served_for_what(tracking, client, experiment):
    uses = [
        DatasetUse("phantom", "0" * 32, "phantom", context, n_images=n)
        for context, n in [("training", 80), ("validation", 30), ("test", 50)]
    ]
    for _ in range(2):
        run_id = tracking.open_study(experiment, "giaem", params={}, tags={}, datasets=uses)
    inputs = client.get_run(run_id).inputs.dataset_inputs
    shown = {(i.tags[0].value, i.dataset.digest, i.dataset.profile) for i in inputs}
    assert len(inputs) == 3
    assert ("test", "0" * 32, '{"num_rows": 50}') in shown


def test_a_trial_is_a_child_run_with_its_own_times(tracking, client, experiment, parent, tmp_path):
    (tmp_path / "grid.txt").write_text("a picture")
    run_id = tracking.publish_trial(experiment, parent, replace(TRIAL, artifacts=tmp_path))
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "trial 7")
    assert (run.info.start_time, run.info.end_time) == (TRIAL.start_ms, TRIAL.end_ms)
    assert run.data.params == {"anomaly_threshold": "0.3"}
    assert run.data.metrics == {"f2": 0.7, "train_loss": 1.0}
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["mlflow.note.content"] == "**seven**"
    assert run.data.tags["detector"] == "abc"
    assert {"mlflow.user", "mlflow.source.name", "mlflow.source.type"} <= set(run.data.tags)
    history = client.get_metric_history(run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert [point.timestamp for point in history] == [1_001_000, 1_002_000, 1_003_000]
    copy = tracking.download(run_id, "grid.txt", tmp_path / "copies")
    assert copy.read_text() == "a picture"


@pytest.mark.parametrize("status", ["FINISHED", "KILLED", "FAILED"])
def test_a_run_ends_in_the_state_of_its_trial(tracking, client, experiment, parent, status):
    run_id = tracking.publish_trial(experiment, parent, replace(TRIAL, status=status))
    assert client.get_run(run_id).info.status == status
    assert tracking.published_trials(experiment, "giaem") == {7: (run_id, status)}


def test_a_trial_published_twice_is_one_run_with_each_value_once(
    tracking, client, experiment, parent
):
    first = tracking.publish_trial(experiment, parent, TRIAL)
    assert tracking.publish_trial(experiment, parent, TRIAL) == first
    assert len(all_runs(client, experiment)) == 2  # with the parent
    assert len(client.get_metric_history(first, "train_loss")) == 3


def test_a_run_that_a_kill_left_empty_is_completed(tracking, client, experiment, parent):
    left = client.create_run(experiment, tags={"study": "giaem", "trial": "7"}).info.run_id
    assert tracking.publish_trial(experiment, parent, TRIAL) == left
    run = client.get_run(left)
    assert (run.info.status, run.data.metrics["f2"]) == ("FINISHED", 0.7)
    assert run.data.tags["mlflow.parentRunId"] == parent


def test_a_run_whose_files_could_not_be_written_is_completed_later(
    tracking, client, experiment, parent, tmp_path
):
    (tmp_path / "grid.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(TrackingError, match="Publishing trial 7 of giaem failed"):
        tracking.publish_trial(experiment, parent, replace(TRIAL, artifacts=tmp_path))
    assert tracking.published_trials(experiment, "giaem") == {}
    run_id = tracking.publish_trial(experiment, parent, TRIAL)
    assert len(all_runs(client, experiment)) == 2
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(client.get_metric_history(run_id, "train_loss")) == 3


def test_a_folder_that_is_not_there_is_an_error(tracking, parent, tmp_path):
    with pytest.raises(TrackingError, match="There is no folder"):
        tracking.log_artifacts(parent, tmp_path / "gone")


def test_what_a_killed_process_left_running_is_closed_and_can_still_be_completed(
    tracking, client, experiment, parent
):
    left, alive = (
        client.create_run(experiment, tags={"study": "giaem", "trial": trial}).info.run_id
        for trial in ("7", "8")
    )
    other = client.create_run(experiment, tags={"study": "dbscan", "trial": "7"}).info.run_id
    closed = tracking.close_running(
        experiment, "giaem", except_run=parent, reason="its process is gone", running_trials={8}
    )
    assert closed == [left]
    assert client.get_run(left).info.status == "KILLED"
    assert client.get_run(left).data.tags["closed"] == "its process is gone"
    assert {client.get_run(run).info.status for run in (parent, alive, other)} == {"RUNNING"}
    tracking.publish_trial(experiment, parent, replace(TRIAL, status="KILLED"))
    assert client.get_run(left).data.metrics["f2"] == 0.7


def test_undefined_metrics_are_left_out_and_long_parameters_are_cut(
    tracking, client, experiment, parent
):
    odd = replace(
        TRIAL,
        params={"long": "x" * 7000},
        metrics={"f2": math.nan, "auroc": None, "seconds": math.inf, "recall": 1.0},
        note="n" * 9000,
    )
    run = client.get_run(tracking.publish_trial(experiment, parent, odd))
    assert set(run.data.metrics) == {"seconds", "recall", "train_loss"}
    assert len(run.data.params["long"]) == 6000
    assert len(run.data.tags["mlflow.note.content"]) == 8000


def test_a_thousand_and_one_trials_are_all_found(tracking, client, experiment, monkeypatch):
    monkeypatch.setattr("mlflow_server.tracking.RUNS_A_PAGE", 3)
    for trial in range(7):
        client.create_run(experiment, tags={"study": "giaem", "trial": str(trial)})
    assert sorted(tracking.published_trials(experiment, "giaem")) == list(range(7))


def test_a_trial_that_the_user_deleted_counts_as_published(tracking, client, experiment, parent):
    client.delete_run(tracking.publish_trial(experiment, parent, TRIAL))
    assert list(tracking.published_trials(experiment, "giaem")) == [7]


def test_a_training_trial_shows_its_epochs_before_it_ends_and_once_after(
    tracking, client, experiment, parent
):
    run_id = tracking.open_trial(experiment, parent, "giaem", 7, "trial 7", TRIAL.start_ms)
    tracking.log_epoch(run_id, 1, {"train_loss": 3.0})
    tracking.log_epoch(run_id, 2, {"train_loss": 2.0, "val_loss": None})
    live = client.get_run(run_id)
    assert (live.info.status, live.data.metrics) == ("RUNNING", {"train_loss": 2.0})
    assert tracking.publish_trial(experiment, parent, TRIAL) == run_id
    history = client.get_metric_history(run_id, "train_loss")
    assert sorted((point.step, point.value) for point in history) == [(1, 3.0), (2, 2.0), (3, 1.0)]


@pytest.mark.slow
def test_a_training_trial_records_the_machine_until_it_ends(tracking, client, experiment, parent):
    run_id = tracking.open_trial(experiment, parent, "giaem", 7, "trial 7", TRIAL.start_ms)
    deadline = time.monotonic() + 30
    used = "system/cpu_utilization_percentage"
    while used not in client.get_run(run_id).data.metrics and time.monotonic() < deadline:
        time.sleep(0.5)
    tracking.publish_trial(experiment, parent, TRIAL)
    points = len(client.get_metric_history(run_id, used))
    assert points >= 1
    time.sleep(3)
    assert len(client.get_metric_history(run_id, used)) == points


def test_a_run_is_found_by_a_tag_in_any_experiment(tracking, experiment, parent):
    trained = replace(TRIAL, tags={"detector_key": "it's key 1"})
    run_id = tracking.publish_trial(experiment, parent, trained)
    assert tracking.find_run("detector_key", "it's key 1") == run_id
    assert tracking.find_run("detector_key", "key 2") is None


def test_a_run_is_found_by_how_its_id_begins(tracking, experiment, parent):
    assert tracking.runs_beginning(parent[:12]) == [parent]
    assert tracking.runs_beginning("0" * 12) == []


def test_a_run_is_read_with_every_value_of_its_metrics_and_none_of_the_machine(
    tracking, client, experiment, parent
):
    run_id = tracking.publish_trial(experiment, parent, TRIAL)
    client.log_metric(run_id, "system/memory", 1.0)
    client.log_metric(run_id, "f2", 0.8, timestamp=2_000_000, step=3)  # said again
    run = tracking.read_run(run_id)
    assert run.series == {"train_loss": [3.0, 2.0, 1.0], "f2": [0.8]}
    assert (run.status, run.params) == ("FINISHED", {"anomaly_threshold": "0.3"})
    assert run.tags["trial"] == "7"


def test_an_unknown_kind_of_address_names_those_that_work(tmp_path):
    with pytest.raises(TrackingError, match=r"must begin with http.*sqlite:///"):
        Tracking("./mlruns", tmp_path)


def test_a_server_that_is_not_there_is_said_within_seconds(tmp_path):
    started = time.monotonic()
    with pytest.raises(TrackingError, match=r"No MLflow server answers .*`make ui`"):
        Tracking("http://127.0.0.1:9", tmp_path)
    assert time.monotonic() - started < SERVER_ANSWERS_WITHIN + 1


def test_a_database_of_another_version_is_refused_with_the_cure(tmp_path, root, tracking):
    file = tmp_path / "mlflow.db"
    file.write_bytes((root / "mlflow" / "mlflow.db").read_bytes())
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'c48cb773bb87'")
    with pytest.raises(TrackingError, match=r"another version of MLflow.*mlflow db upgrade"):
        Tracking(f"sqlite:///{file}", tmp_path)


def test_a_file_that_is_no_database_is_refused_with_the_cure(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database, but long enough to look at" * 50)
    with pytest.raises(TrackingError, match=r"cannot be opened.*move it away"):
        Tracking(f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


@pytest.mark.slow
def test_processes_that_meet_at_a_new_database_all_get_in(tmp_path):
    code = f"from mlflow_server import *; Tracking({local_uri(tmp_path)!r}, {str(tmp_path)!r})"
    starting = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in starting] == [0, 0, 0]


TABLES = ("runs", "tags", "params", "metrics", "latest_metrics")
OF_A_RUN = ("run_uuid", "experiment_id", "artifact_uri")  # what tells it from another


def rows_of(root, run_id):
    """Every row of a run but for what tells it from another run."""
    with closing(sqlite3.connect(root / "mlflow" / "mlflow.db")) as database:
        database.row_factory = sqlite3.Row
        return {
            table: sorted(
                str({name: row[name] for name in row.keys() if name not in OF_A_RUN})  # noqa: SIM118
                for row in database.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", [run_id])
            )
            for table in TABLES
        }


def files_of(client, run_id):
    return {found.path for found in client.list_artifacts(run_id)}


def n_trials(n):
    metrics = {f"metric {i}": i / 7 for i in range(20)}
    return [replace(TRIAL, trial=i, name=f"trial {i}", metrics=metrics) for i in range(n)]


def test_trials_written_together_are_the_rows_that_the_client_writes(
    tracking, client, experiment, parent, root, tmp_path
):
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "predictor.json").write_text("{}")
    odd = replace(
        TRIAL,
        params={"long": "x" * 7000, "n": 3, "kind": None},
        metrics={"f2": math.nan, "seconds": math.inf, "loss": -math.inf, "train_loss": 1.0},
        history=[*TRIAL.history, {"train_loss": 0.5, "val_loss": None}],
        artifacts=tmp_path,
    )
    together = tracking.publish_trials(experiment, parent, [replace(odd, trial=8), odd])
    tags = {"study": "giaem", "trial": "7", "mlflow.parentRunId": parent}
    single = tracking._create_run(
        experiment,
        odd.name,
        tags={**tags, **odd.tags, "mlflow.note.content": odd.note},
        start_ms=odd.start_ms,
    )
    tracking._complete(single, odd, {}, epochs_logged=0)
    assert rows_of(root, together[7]) == rows_of(root, single)
    assert files_of(client, together[7]) == files_of(client, single) == {"head"}
    copy = tracking.download(together[8], "head", tmp_path / "copies")
    assert (copy / "predictor.json").read_text() == "{}"


def test_a_hundred_trials_are_one_transaction(tracking, experiment, parent):
    engine, counts = tracking._client._tracking_client.store.engine, Counter()

    def commit(connection):
        counts["commits"] += 1

    def count(connection, cursor, statement, *_):
        counts["statements"] += 1

    event.listen(engine, "commit", commit)
    event.listen(engine, "before_cursor_execute", count)
    published = tracking.publish_trials(experiment, parent, n_trials(100))
    event.remove(engine, "commit", commit)
    event.remove(engine, "before_cursor_execute", count)
    assert len(published) == 100
    assert counts["commits"] <= 4 and counts["statements"] <= 40


def test_trials_published_together_again_are_kept_as_they_are(tracking, client, experiment, parent):
    first = tracking.publish_trials(experiment, parent, n_trials(3))
    client.set_tag(first[1], "mine", "a word")
    changed = [replace(run, metrics={"f2": 0.1}) for run in n_trials(4)]
    assert tracking.publish_trials(experiment, parent, changed).items() >= first.items()
    assert tracking.publish_trial(experiment, parent, changed[1]) == first[1]
    assert len(all_runs(client, experiment)) == 5  # with the parent
    assert client.get_run(first[1]).data.tags["mine"] == "a word"
    assert "f2" not in client.get_run(first[1]).data.metrics


@pytest.mark.slow
def test_processes_that_publish_the_same_trials_write_each_once(
    tracking, client, experiment, parent, uri, root
):
    code = (
        "import sys; from mlflow_server import *\n"
        "tracking = Tracking(sys.argv[1], sys.argv[2])\n"
        "for start in range(0, 40, 8):\n"
        "    runs = [TrialRun('giaem', i, f'trial {i}', 'FINISHED', 1, 2, metrics={'f2': 1.0})\n"
        "            for i in range(start, start + 8)]\n"
        "    tracking.publish_trials(sys.argv[3], sys.argv[4], runs)\n"
    )
    command = [sys.executable, "-c", code, uri, str(local_artifacts(root)), experiment, parent]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    runs = [run for run in all_runs(client, experiment) if "trial" in run.data.tags]
    assert sorted(int(run.data.tags["trial"]) for run in runs) == list(range(40))
    assert {run.data.metrics["f2"] for run in runs} == {1.0}


def test_files_of_a_trial_that_died_before_it_was_written_are_its_runs_in_the_end(
    tracking, client, experiment, parent, tmp_path, root
):
    (tmp_path / "grid.txt").write_text("a picture")
    with pytest.raises(TrackingError, match=r"Publishing 1 trials of giaem failed"):
        tracking.publish_trials(experiment, "0" * 32, [replace(TRIAL, artifacts=tmp_path)])
    assert tracking.published_trials(experiment, "giaem") == {}
    run_id = tracking.publish_trials(experiment, parent, [replace(TRIAL, artifacts=tmp_path)])[7]
    assert files_of(client, run_id) == {"grid.txt"}


def test_a_folder_that_is_handed_over_is_the_runs_and_gone(tracking, parent, tmp_path):
    (tmp_path / "evidence" / "deep").mkdir(parents=True)
    (tmp_path / "evidence" / "deep" / "report.html").write_text("new")
    tracking.hand_over(parent, tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()
    copy = tracking.download(parent, "deep/report.html", tmp_path / "copies")
    assert copy.read_text() == "new"


def test_a_file_that_replaces_another_leaves_the_others_links_alone(tmp_path):
    for name, text in (("first", "1"), ("second", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
    for name in ("first", "first", "second"):
        place(tmp_path / name, tmp_path / "run")
    assert (tmp_path / "run" / "file").read_text() == "2"
    assert (tmp_path / "first" / "file").read_text() == "1"
    assert (tmp_path / "run" / "file").samefile(tmp_path / "second" / "file")
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "file").write_text("2")
    share(tmp_path / "third", tmp_path / "run")
    share(tmp_path / "third", tmp_path / "first")
    assert (tmp_path / "third" / "file").samefile(tmp_path / "run" / "file")
    assert not list(tmp_path.rglob("*.tmp"))
