"""Evidence from whole studies on a small phantom: splits, controls, one look at each test split."""

from dataclasses import replace

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from studies.__main__ import main
from studies.control_runs import SameImages, answer_permuted, answer_silhouettes
from studies.evidence import complete, make_evidence, n_ended
from studies.evidence_split import once, operating_point, score_split
from studies.finish import read_answers
from studies.record import FAILED
from studies.retries import INTERRUPTED
from studies.runner import open_search
from studies.session import open_session
from studies.settings import Settings
from studies.storage import begun, best_feasible, open_storage
from studies.study import News, StudyError, find_study
from training.controls import permuted_labels
from training.data.phantom import write as write_phantom
from training.floors import evaluate_scored

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A small phantom in a folder of the user's."""
    folder = tmp_path_factory.mktemp("data") / "slices"
    write_phantom(folder, n_images=120, n_groups=60)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("var")


@pytest.fixture(scope="module")
def settings(images, root):
    return Settings(
        root=root,
        storage_url=f"sqlite:///{root / 'optuna.db'}",
        tracking_uri=f"sqlite:///{root / 'mlflow' / 'mlflow.db'}",
        trials=3,
        data=str(images),
    )


@pytest.fixture(scope="module")
def gathered(images, root):
    """Evidence of two splits, asked for on the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAR_DIR", str(root))
        for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        arguments = ["--data", str(images), "--trials", "3", "--splits", "2"]
        assert main(["evidence", "giaem", *arguments]) == 0
    return root / "reports" / "evidence-giaem-slices.html"


@pytest.fixture
def session(gathered, settings):
    return open_session(find_study("giaem"), settings, say=lambda _: None)


def search_of(root, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{root / 'optuna.db'}")


def study_name(seed):
    return "giaem (slices, seed 1)" if seed else "giaem (slices)"


@pytest.mark.slow
def test_every_seed_is_a_study_of_its_own_that_looked_at_its_test_split_once(gathered, root):
    for seed in SEEDS:
        search = search_of(root, study_name(seed))
        assert len(search.trials) == 3
        assert search.user_attrs["test_looks"] == [best_feasible(search).number]


@pytest.mark.slow
def test_a_second_call_searches_and_asks_nothing_and_says_the_same(gathered, root, settings):
    before = numbers(gathered)
    answers = {path: path.stat().st_mtime_ns for path in root.glob("studies/*/*/*.csv")}
    assert len(answers) > 4
    assert make_evidence(find_study("giaem"), settings, 2)
    assert [len(search_of(root, study_name(seed)).trials) for seed in SEEDS] == [3, 3]
    assert {path: path.stat().st_mtime_ns for path in answers} == answers
    assert numbers(gathered) == before


def numbers(page):
    """The words and the table, but for the commit: others may commit meanwhile."""
    words = page.with_suffix(".md").read_text().splitlines()
    said = [line for line in words if not line.startswith("| commit |")]
    return said, page.with_suffix(".csv").read_text()


@pytest.mark.slow
def test_the_table_holds_the_mean_of_what_each_study_answered(gathered, root):
    table = pd.read_csv(gathered.with_suffix(".csv")).set_index(["method", "metric"])
    values = []
    for seed in SEEDS:
        best = best_feasible(search_of(root, study_name(seed)))
        slug = "giaem-slices-seed-1" if seed else "giaem-slices"
        path = root / "studies" / slug / "test" / f"trial_{best.number}.csv"
        values.append(read_answers("giaem", path).metrics["auroc"])
    row = table.loc[("giaem", "auroc")]
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["sd"] == pytest.approx(np.std(values, ddof=1))
    assert [row.seed_0, row.seed_1] == pytest.approx(values)
    assert row.low <= row["mean"] <= row.high


@pytest.mark.slow
def test_floors_confounds_and_controls_stand_beside_the_method(gathered):
    table = pd.read_csv(gathered.with_suffix(".csv"))
    kinds = dict(zip(table.method, table["is"], strict=True))
    assert kinds["giaem"] == "method"
    assert kinds["mean_intensity"] == "floor"
    assert kinds["file_geometry"] == "confound"
    assert kinds["permuted_labels"] == kinds["silhouettes"] == "control"


@pytest.mark.slow
def test_the_words_claim_and_limit(gathered):
    words = gathered.with_suffix(".md").read_text()
    for expected in (
        "2 splits are few",
        "Not to be claimed",
        "`permuted_labels`",
        "`silhouettes`",
        "not a medical device",
        "pointing_game",
        "30 groups of healthy",
        "13 tumour groups cannot show a recall of 0.9",
    ):
        assert expected in words


@pytest.mark.slow
def test_the_page_stands_alone(gathered):
    page = gathered.read_text()
    assert "Plotly.newPlot" in page and "<script src=" not in page
    assert page.count('class="winner"') == 1
    assert "$" + "body" not in page


@pytest.mark.slow
def test_the_record_keeps_files_and_means(gathered, settings):
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    experiment = client.get_experiment_by_name("evidence")
    (run,) = client.search_runs([experiment.experiment_id])
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {f"evidence-giaem-slices.{kind}" for kind in ("md", "csv", "html")}
    table = pd.read_csv(gathered.with_suffix(".csv")).set_index(["method", "metric"])
    assert run.data.metrics["auroc"] == pytest.approx(table.loc[("giaem", "auroc"), "mean"])
    assert run.data.metrics["silhouettes_auroc"] == pytest.approx(
        table.loc[("silhouettes", "auroc"), "mean"]
    )
    assert run.info.status == "FINISHED" and run.data.tags["study"] == "giaem (slices)"


@pytest.mark.slow
def test_a_study_that_lacks_trials_gets_those_alone(gathered, root, settings):
    session = complete(find_study("giaem"), replace(settings, seed=2, trials=1))
    assert len(begun(search_of(root, session.name))) == 1
    complete(find_study("giaem"), replace(settings, seed=2, trials=3))
    assert len(begun(search_of(root, session.name))) == 3


@pytest.mark.slow
def test_permuted_labels_are_tested_under_the_permuted_labels_of_their_own_split(session):
    scored = answer_permuted(session, {"anomaly_threshold": 0.3, "tumor_index": 0.1})
    permuted = permuted_labels(session.lab.dataset, session.lab.seed)
    by_group = dict(zip(permuted.groups, permuted.labels, strict=True))
    assert scored.labels.tolist() == [by_group[group] for group in scored.groups]
    true = dict(zip(permuted.groups, session.lab.dataset.labels, strict=True))
    assert any(by_group[group] != true[group] for group in scored.groups)


@pytest.mark.slow
def test_silhouettes_are_tested_on_the_studys_own_test_split(session):
    scored = answer_silhouettes(session, {"anomaly_threshold": 0.3, "tumor_index": 0.1})
    test = session.lab.splits.test
    assert scored.labels.tolist() == session.lab.dataset.labels[test].tolist()
    assert scored.groups.tolist() == session.lab.dataset.groups[test].tolist()
    true = answer_on_images(session, {"anomaly_threshold": 0.3, "tumor_index": 0.1})
    assert not np.array_equal(scored.scores, true)


def answer_on_images(session, params):
    candidate = session.study.fit(params, session.lab, News())
    return candidate.answers(session.lab, "test").scores


@pytest.mark.slow
def test_a_split_without_a_feasible_trial_is_a_sentence_with_a_cure(session, settings):
    nothing = replace(session, name="giaem (nothing yet)")
    with pytest.raises(StudyError, match="TRIALS"):
        score_split(nothing)


@pytest.mark.slow
def test_the_recall_threshold_is_chosen_on_validation(session, settings):
    search = open_search(session, open_storage(settings.storage_url))
    best = best_feasible(search)
    path = session.folder / "test" / f"trial_{best.number}.csv"
    method = read_answers("giaem", path)
    candidate = session.study.fit(best.params, session.lab, News())
    point, note = operating_point(session, candidate, method)
    assert point is None and "at least" in note


def test_permuted_labels_take_the_features_of_the_images_that_they_are_of(phantom):
    class Original:
        def of(self, *asked):
            return "features", asked

    permuted = permuted_labels(phantom, 0)
    features = SameImages(permuted, None, None, original=Original())
    assert features.of("mapper", "extraction", [1, 2], ()) == (
        "features",
        ("mapper", "extraction", [1, 2], ()),
    )
    assert features.dataset is permuted


def test_what_was_asked_once_is_read(tmp_path, phantom_scored):
    asked = []

    def ask(session):
        asked.append(session)
        return phantom_scored

    class Here:
        name, folder = "a study", tmp_path

    first, second = once(Here, "method", ask), once(Here, "method", ask)
    assert asked == [Here]
    assert first.metrics == second.metrics == phantom_scored.metrics


@pytest.fixture
def phantom_scored():
    labels = np.array([0, 0, 1, 1])
    return evaluate_scored("method", labels, np.arange(4), labels - 0.5, labels)


def test_trials_that_ended_by_themselves_count_and_interrupted_ones_do_not():
    search = optuna.create_study()
    ends = [
        (TrialState.COMPLETE, {}),
        (TrialState.PRUNED, {}),
        (TrialState.FAIL, {FAILED: "ValueError: no"}),
        (TrialState.FAIL, {INTERRUPTED: "stopped by a signal"}),
        (TrialState.FAIL, {}),  # its process died
    ]
    for state, attributes in ends:
        value = 1.0 if state == TrialState.COMPLETE else None
        search.add_trial(optuna.trial.create_trial(state=state, value=value, user_attrs=attributes))
    assert n_ended(search) == 3
