"""The way to the champion and back, on a real registry: aliases, evidence, the chain of decisions.

The models are tiny and their answers on test are written here; tests/test_champion.py goes the
whole way from two studies.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from mlflow_server import Tracking, TrackingError, local_artifacts, local_uri
from mlflow_server.registry import find_version, log_model, register, tells
from studies.__main__ import main
from studies.promotion.contender import find_candidate
from studies.promotion.gate import Limits
from studies.promotion.promote import open_registry, promote, rollback
from studies.promotion.timeline import as_lines
from studies.settings import CHAMPION, Settings
from studies.study import StudyError

pytestmark = pytest.mark.slow

N = 100
LOADER = (
    "class Model:\n    def predict(self, images): ...\n\ndef load(folder):\n    return Model()\n"
)
TAGS = {"data": "slices", "data_digest": "d" * 32, "split": "grouped", "seed": "0", "trial": "3"}


def answers(*, missed, alarms):
    """A hundred images of each class; some tumours missed, some false alarms."""
    labels = np.repeat([0, 1], N)
    predicted = labels.copy()
    predicted[:alarms] = 1
    predicted[N : N + missed] = 0
    files = [f"{i}.png" for i in range(2 * N)]
    columns = {"file": files, "label": labels, "group": np.arange(2 * N)}
    return pd.DataFrame({**columns, "score": predicted - 0.5, "predicted": predicted})


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path, f"sqlite:///{tmp_path / 'optuna.db'}", local_uri(tmp_path))


@pytest.fixture
def client(settings):
    return MlflowClient(settings.tracking_uri, settings.tracking_uri)


@pytest.fixture
def candidate(settings, tmp_path):
    """Makes a study's candidate with these answers on test, and returns its address."""
    tracking = Tracking(settings.tracking_uri, local_artifacts(tmp_path))
    package = tmp_path / "packages" / "tiny"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(LOADER)

    def make(name, *, keep=True, kind="detector", **wrong):
        experiment = tracking.experiments.open(name, note="", tags={})
        looks = {"test_split": "abcdefabcdef", "test_looks": "2"}
        tracking.open_study(experiment, name, params={}, tags=looks, datasets=[])
        run_id = tracking.add_run(experiment, f"{name} trial", tags={"trial": "3"})
        if keep:
            folder = tmp_path / "kept"
            folder.mkdir(exist_ok=True)
            answers(**wrong).to_csv(folder / "test_answers.csv", index=False)
            floor = answers(missed=0, alarms=N).assign(floor="always_tumor")
            floor.to_csv(folder / "floor_answers.csv", index=False)
            tracking.log_artifacts(run_id, folder, "test")
        (tmp_path / "weights").mkdir(exist_ok=True)
        (tmp_path / "weights" / "w.txt").write_text(name)
        model = log_model(
            settings.tracking_uri,
            run_id,
            tmp_path / "weights",
            name="model",
            flavour=tells(),
            loader="tiny:load",
            code_paths=[package],
            pip_requirements=["numpy"],
            metadata={},
        )
        tags = {**TAGS, "study": name, "kind": kind, "test_split": "abcdefabcdef"}
        register(settings.tracking_uri, model, name, tags=tags, description="of the study")
        return f"models:/{name}@candidate"

    return make


def try_promoting(settings, model, *, force=""):
    return promote(settings, model, alias="champion", limits=Limits(), force=force)


def champion(settings):
    return find_version(settings.tracking_uri, CHAMPION)


def test_a_better_model_becomes_champion_a_worse_one_is_refused_forced_and_rolled_back(
    settings, client, candidate, capsys
):
    good, bad = candidate("good", missed=1, alarms=10), candidate("bad", missed=8, alarms=30)
    assert try_promoting(settings, good).outcome == "promoted"
    first = champion(settings)
    assert first.tags["promoted_from"] == "models:/good/1" and first.tags["study"] == "good"
    assert "3 of 3 rules of the gate are kept" in first.description
    refused = try_promoting(settings, bad)
    assert refused.outcome == "refused" and champion(settings) == first
    failed = [check.rule for check in refused.checks if not check.passed]
    assert len(failed) == 3  # recall itself, recall and F2 beside the champion
    kept = client.get_model_version("bad", "1").tags
    assert kept["promotion"].startswith("models:/bad/1 was refused as champion")
    assert json.loads(kept["promotion_evidence"])["outcome"] == "refused"
    assert "FAILED" in capsys.readouterr().out
    forced = try_promoting(settings, bad, force="the other one sees no small tumours")
    assert forced.outcome == "forced"
    assert champion(settings).tags["study"] == "bad"
    back = rollback(settings, alias="champion", why="too many alarms")
    assert back.after == first.uri and champion(settings) == find_version(
        settings.tracking_uri, first.uri
    )
    entries = open_registry(settings).history.entries()
    outcomes = [entry.decision.outcome for entry in entries]
    assert outcomes == ["promoted", "refused", "forced", "rolled back"]
    assert all(entry.is_done for entry in entries)
    lines = as_lines(entries)
    assert "why: the other one sees no small tumours" in lines
    assert "champion: models:/tumor-detector/2 -> models:/tumor-detector/1" in lines
    assert "looked at 4 times by 2 studies, and 1 decisions were made by it before" in lines
    with pytest.raises(StudyError, match="There is no champion before"):
        rollback(settings, alias="champion", why="")


def test_a_model_that_is_champion_already_is_not_decided_upon_again(settings, candidate, client):
    good = candidate("good", missed=1, alarms=10)
    try_promoting(settings, good)
    assert try_promoting(settings, good) is None
    assert try_promoting(settings, CHAMPION) is None
    assert len(client.search_model_versions("name = 'tumor-detector'")) == 1
    assert len(open_registry(settings).history.entries()) == 1


def test_a_model_that_was_champion_before_has_one_version(settings, candidate, client):
    good, better = candidate("good", missed=1, alarms=40), candidate("better", missed=1, alarms=5)
    for model, force in ((good, ""), (better, ""), (good, "a drill")):
        assert try_promoting(settings, model, force=force).outcome != "refused"
    assert len(client.search_model_versions("name = 'tumor-detector'")) == 2
    assert champion(settings).tags["study"] == "good"
    assert rollback(settings, alias="champion", why="").after == "models:/tumor-detector/2"


def test_a_model_without_kept_answers_is_refused_and_says_what_to_do(settings, candidate):
    (check,) = try_promoting(settings, candidate("old", keep=False)).checks
    assert not check.passed and "run its study once more" in check.found


def test_a_generator_cannot_be_promoted(settings, candidate):
    with pytest.raises(StudyError, match="makes images and tells no tumours"):
        try_promoting(settings, candidate("vae", keep=False, kind="generator"))


def test_a_model_whose_files_were_changed_is_not_promoted(settings, candidate, tmp_path):
    good = candidate("good", missed=1, alarms=10)
    (weights,) = local_artifacts(tmp_path).rglob("w.txt")
    weights.write_text("other weights")
    with pytest.raises(TrackingError, match="are not those that were logged"):
        try_promoting(settings, good, force="now")
    assert open_registry(settings).history.entries() == []


@pytest.mark.parametrize("change", ["remove", "rewrite"])
def test_a_decision_that_was_changed_or_removed_shows(settings, candidate, client, change):
    good, bad = candidate("good", missed=1, alarms=10), candidate("bad", missed=8, alarms=30)
    try_promoting(settings, good)
    try_promoting(settings, bad)
    first, _ = open_registry(settings).history.entries()
    if change == "remove":
        client.delete_run(first.run_id)
    else:
        folder = Path(client.get_run(first.run_id).info.artifact_uri.removeprefix("file://"))
        text = (folder / "decision.json").read_text()
        (folder / "decision.json").write_text(text.replace('"promoted"', '"forced"'))
    with pytest.raises(StudyError, match="Decision 1 of the history was changed or removed"):
        open_registry(settings).history.entries()


def test_a_study_is_found_by_its_name_or_by_what_sets_it_apart(settings, candidate):
    candidate("giaem-phantom", missed=1, alarms=1)
    uri = settings.tracking_uri
    assert find_candidate(uri, "giaem") == "models:/giaem-phantom@candidate"
    assert find_candidate(uri, "giaem (phantom)") == "models:/giaem-phantom@candidate"
    candidate("giaem-seed-1", missed=1, alarms=1)
    with pytest.raises(StudyError, match="may be any of giaem-phantom, giaem-seed-1"):
        find_candidate(uri, "giaem")
    with pytest.raises(StudyError, match="There are giaem-phantom, giaem-seed-1"):
        find_candidate(uri, "dbscan")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["promote", "giaem"], "No study 'giaem' has a candidate to promote. There is none yet."),
        (["promote", "giaem", "--recall-floor", "1.5"], "RECALL_FLOOR must be a number from 0 to"),
        (["promote", "giaem", "--model", "giaem"], "MODEL must be models:/<name>@<alias>"),
        (["promote", "giaem", "--alias", "a b"], "ALIAS must be letters, digits"),
        (["rollback"], "There is no champion before the first to go back to"),
    ],
)
def test_wrong_input_is_one_sentence(settings, monkeypatch, capsys, arguments, sentence):
    monkeypatch.setenv("VAR_DIR", str(settings.root))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    try:
        status = main(arguments)
    except SystemExit as end:
        status = end.code
    assert status == 2
    assert sentence in capsys.readouterr().err
