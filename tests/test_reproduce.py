"""Trials of real studies, run again from their runs: to the last bit, or what differs is said."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from interrupted import INTERRUPTED
from mlflow import MlflowClient
from optuna.pruners import NopPruner, ThresholdPruner

from mlflow_server import Tracking
from studies.__main__ import main
from studies.detector import FIRST
from studies.paper_effort import Search
from studies.provenance import Commit
from studies.reproduce.conditions import write_conditions
from studies.runner import FINISHED, enqueue_first, open_record, open_search, run_trials, trials_in
from studies.session import open_session
from studies.settings import Settings
from studies.storage import open_storage
from studies.study import find_study
from training.data import phantom

pytestmark = pytest.mark.slow

CVAE = {"image_size": 32, "n_epochs": 3, "latent_dim": 8, "batch_size": 16}
CNN = {"variant": "small", "image_size": 32, "n_epochs": 2}
VAE = {"image_size": 32, "base_channels": 8, "n_epochs": 3, "patience": 3, "batch_size": 4}
VAE |= {"latent_dim": 4, "lr": 5e-3, "kl_weight": 1e-3}  # it learns more than one grey
JUDGE = {"variant": "small", "image_size": 32, "n_epochs": 1}
POINT = FIRST | {"flips": "none"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where everything is written, and a small phantom in a folder of the user's."""
    root = tmp_path_factory.mktemp("var")
    phantom.write(root / "slices", n_images=120, n_groups=60)
    return {
        "root": root,
        "storage_url": f"sqlite:///{root / 'optuna.db'}",
        "tracking_uri": f"sqlite:///{root / 'mlflow' / 'mlflow.db'}",
    }


@pytest.fixture(scope="module")
def client(place):
    return MlflowClient(place["tracking_uri"], place["tracking_uri"])


@pytest.fixture(scope="module")
def opened(place):
    """Opens a session of a study under its smallest hyperparameters."""

    def open_(name, *, label="", first=(), **fixed):
        search = Search(1, fixed=fixed, first=first)
        study = replace(search.narrowed(find_study(name)), pruner=NopPruner())
        data = str(place["root"] / "slices")
        settings = Settings(**place, data=data, trials=1, label=label, device="cpu")
        return open_session(study, settings, say=lambda _: None)

    return open_


@pytest.fixture(scope="module")
def publish(client):
    """Runs trials of a session, without its end, and gives their runs' ids."""

    def run(session, n_trials=1):
        session = replace(session, settings=replace(session.settings, trials=n_trials))
        with redirect_stdout(io.StringIO()):
            search = open_search(session, open_storage(session.settings.storage_url))
            enqueue_first(session.study, search)
            record = open_record(session, search)
            run_trials(session, search, record)
            assert record.settle(trials_in(search, *FINISHED)) == []
        return [record.published[number] for number in sorted(record.published)]

    return run


@pytest.fixture(scope="module")
def giaem(opened, publish):
    """Two trials over one network, which the first trained; their runs' ids."""
    return publish(opened("giaem", **CVAE), n_trials=2)


@pytest.fixture
def reproduce(place, monkeypatch, capsys):
    """Runs `python -m studies reproduce ...` in this process; its status and what it said."""
    monkeypatch.setenv("VAR_DIR", str(place["root"]))
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        status = main(["reproduce", *arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return call


def parent_of(client, run_id):
    return client.get_run(run_id).data.tags["mlflow.parentRunId"]


def artifact(client, run_id, name):
    """A file of a run where it lies on this disk."""
    folder = client.get_run(run_id).info.artifact_uri.removeprefix("file://")
    return Path(folder) / name


def change(client, run_id, metric):
    """Move a metric of the record by one bit."""
    value = client.get_run(run_id).data.metrics[metric]
    step = client.get_metric_history(run_id, metric)[-1].step
    later = round(time.time() * 1000) + 1000
    client.log_metric(run_id, metric, float(np.nextafter(value, 2)), later, step)


def test_a_trial_over_a_network_of_another_is_reproduced_to_the_last_bit(giaem, reproduce, client):
    status, said = reproduce(giaem[1])
    assert status == 0
    assert "Trial 1 of giaem (slices) is reproduced to the last bit" in said
    assert "measures of 3 epochs" in said  # the first trial's run has them
    assert "not a medical device" in said
    tags = client.get_run(giaem[1]).data.tags
    assert tags["reproduced"] == "bit-equal"
    assert tags["reproduced_commit"].startswith(tags["mlflow.source.git.commit"])
    assert tags["reproduced_at"].endswith("Z")
    assert reproduce(giaem[1][:12])[0] == 0  # and again, by the beginning of its id
    page = artifact(client, giaem[1], "reproduction.md").read_text()
    assert page.count("bit-equal") == 2 and page.count("| f2") == 2


@pytest.mark.parametrize(("name", "fixed"), [("brain_cvae", CVAE), ("detector", {}), ("vae", VAE)])
def test_trials_of_every_kind_are_reproduced_to_the_last_bit(
    opened, publish, reproduce, monkeypatch, name, fixed
):
    # what generators are judged by takes 20 seconds otherwise
    monkeypatch.setattr("studies.generation_measures.PRETRAINED", JUDGE)
    monkeypatch.setattr("studies.generation_measures.N_JUDGED", 32)
    monkeypatch.setattr("training.generator.JUDGED", 32)
    (run_id,) = publish(opened(name, first=(POINT,) if name == "detector" else (), **fixed))
    status, said = reproduce(run_id)
    assert "is reproduced to the last bit" in said
    assert status == 0


def test_one_bit_in_the_record_is_a_difference(opened, publish, reproduce, client):
    (run_id,) = publish(opened("brain_cnn", **CNN))
    assert reproduce(run_id)[0] == 0
    change(client, run_id, "auroc")
    status, said = reproduce(run_id)
    assert status == 1
    assert "differs from its record in auroc. Nothing that is recorded around it" in said
    assert client.get_run(run_id).data.tags["reproduced"] == "differs"


def test_another_seed_in_the_record_is_a_difference(opened, publish, reproduce, client):
    (run_id,) = publish(opened("giaem", label="seed", **CVAE))
    file = artifact(client, parent_of(client, run_id), "settings.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"seed": 1}))
    status, said = reproduce(run_id)
    assert status == 1
    assert "What changed around it: seed." in said


def test_on_another_machine_a_small_difference_is_within_tolerance(
    opened, publish, reproduce, client
):
    (run_id,) = publish(opened("giaem", label="machine", **CVAE))
    change(client, run_id, "auroc")
    client.set_tag(run_id, "device_name", "another processor")
    status, said = reproduce(run_id)
    assert status == 0
    assert "since other device round sums otherwise" in said
    assert client.get_run(run_id).data.tags["reproduced"] == "within tolerance"


def test_a_pruned_trial_is_run_to_the_epoch_at_which_it_was_pruned(
    opened, publish, reproduce, client
):
    session = opened("brain_cvae", label="pruned", **{**CVAE, "latent_dim": 12})
    pruner = ThresholdPruner(lower=2.0, n_warmup_steps=2)  # no AUROC is as high
    (run_id,) = publish(replace(session, study=replace(session.study, pruner=pruner)))
    assert client.get_run(run_id).data.tags["state"] == "PRUNED"
    assert len(client.get_metric_history(run_id, "val_loss")) == 2
    status, said = reproduce(run_id)
    assert status == 0
    assert "to the last bit: 7 measures of 2 epochs" in said
    change(client, run_id, "val_loss")
    assert reproduce(run_id)[0] == 1


def test_a_failed_trial_fails_with_the_same_error(opened, publish, reproduce, client):
    (run_id,) = publish(opened("brain_cvae", label="failing", **CVAE, lr=1e30))
    assert client.get_run(run_id).info.status == "FAILED"
    status, said = reproduce(run_id)
    assert status == 0
    assert "fails with the same error again" in said
    assert client.get_run(run_id).data.tags["reproduced"] == "same error"
    client.set_tag(run_id, "reason", "ValueError: another")
    assert reproduce(run_id)[0] == 1


def test_a_parent_run_is_answered_with_its_best_trial(giaem, reproduce, client, place):
    parent = parent_of(client, giaem[0])
    status, said = reproduce(parent)
    assert status == 2
    assert "has no best trial" in said
    tracking = Tracking(place["tracking_uri"], place["root"])
    tracking.tag(parent, {"best_trial": "1", "best_run": giaem[1]})
    status, said = reproduce(parent)
    assert status == 0
    assert f"giaem (slices) is a whole study: its best trial is 1, run {giaem[1]}." in said


def test_a_registered_model_is_answered_with_the_run_it_comes_from(giaem, reproduce, client):
    client.create_registered_model("giaem-slices")
    client.create_model_version("giaem-slices", "file:///nowhere", tags={"run_id": giaem[0]})
    status, said = reproduce("models:/giaem-slices/1")
    assert status == 0
    assert f"models:/giaem-slices/1 comes from run {giaem[0]}." in said


def test_a_run_that_cannot_be_reproduced_says_why_in_a_sentence(
    giaem, reproduce, client, opened, publish
):
    experiment = client.get_run(giaem[0]).info.experiment_id
    summary = client.create_run(experiment, tags={"study": "evidence"}, run_name="evidence")
    killed = client.create_run(experiment, tags={"trial": "0", "reason": "stopped by a signal"})
    running = client.create_run(experiment, tags={"trial": "0"})
    client.set_terminated(killed.info.run_id, "KILLED")
    (old,) = publish(opened("giaem", label="old", **CVAE))
    artifact(client, parent_of(client, old), "settings.json").unlink()
    for run, sentence in {
        "": "RUN must be a run's id",
        "abc": "RUN must be a run's id",
        "0" * 32: "There is no run 0000",
        "models:/nothing@candidate": "nothing",
        summary.info.run_id: "(evidence) is no trial: it sums up or compares others",
        killed.info.run_id: "has no outcome to compare with (stopped by a signal)",
        running.info.run_id: "has not ended",
        old: "was made before settings were recorded. Add one trial to its study",
    }.items():
        status, said = reproduce(run)
        assert status == 2
        assert sentence in said and len(said.strip().splitlines()) == 1


def test_images_that_are_not_there_any_more_are_missed(opened, publish, reproduce, place, client):
    (run_id,) = publish(opened("giaem", label="images", **CVAE))
    one, folder = place["root"] / "slices" / "yes" / "y0.jpg", place["root"] / "slices"
    content = one.read_bytes()
    one.unlink()
    try:
        status, said = reproduce(run_id)
    finally:
        one.write_bytes(content)
    assert status == 2
    assert "are not there any more" in said
    moved = folder.with_name("moved")
    folder.rename(moved)
    try:
        status, said = reproduce(run_id)
        assert status == 2
        assert "Say with DATA= where they are now" in said
        assert "reproduced" not in client.get_run(run_id).data.tags
        assert reproduce(run_id, "--data", str(moved))[0] == 0
    finally:
        moved.rename(folder)


def test_ctrl_c_leaves_nothing_behind(opened, publish, place, client, tmp_path):
    (run_id,) = publish(opened("giaem", label="long", **{**CVAE, "n_epochs": 60}))
    command = [sys.executable, "-m", "studies", "reproduce", run_id]
    environment = {**os.environ, "VAR_DIR": str(place["root"]), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("reproduce-*")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in INTERRUPTED
    finally:
        process.kill()
        process.wait()
    assert not list(tmp_path.glob("reproduce-*"))
    assert "reproduced" not in client.get_run(run_id).data.tags
    assert not artifact(client, run_id, "reproduction.md").exists()


def test_every_uncommitted_change_of_a_study_is_kept_and_each_trial_names_its_own(
    opened, publish, client
):
    session = opened("giaem", label="changes", **CVAE)
    runs = {}
    for diff in ("one change\n", "", "another\n"):
        commit = Commit("abc", diff)
        runs[diff] = publish(replace(session, commit=commit))[-1]
    for diff, run_id in runs.items():
        changes = client.get_run(run_id).data.tags["changes"]
        if not diff:
            assert changes == "none"
            continue
        kept = artifact(client, parent_of(client, run_id), f"changes/{changes}.diff")
        assert kept.read_text() == diff


def test_settings_are_recorded_as_they_were_given(opened, place):
    session = opened("brain_cnn", label="mine", **CNN)
    folder = write_conditions(session)
    assert json.loads((folder / "settings.json").read_text()) == {
        "study": "brain_cnn",
        "data": str(place["root"] / "slices"),
        "split": "grouped",
        "preprocess": "head",
        "detector": "brain_cvae",
        "seed": 0,
        "train_on": "real",
        "generator": "vae",
        "label": "mine",
        "device": "cpu",
    }
    (packages,) = (folder / "requirements").iterdir()
    assert packages.stem == session.tags()["requirements"]
    assert "\ntorch==" in packages.read_text()
