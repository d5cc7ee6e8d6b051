"""`compare` as a command, over a real record: the page, its pictures, and what is refused."""

import re

import mlflow
import numpy as np
import pandas as pd
import pytest
from compared import (
    Made,
    add_study,
    answers,
    completed,
    keep_on_disk,
    publish_study,
    settings_of,
)
from sklearn.metrics import roc_auc_score

from studies.__main__ import main
from studies.compare import comparison
from studies.compare.comparison import winners_link
from studies.compare.contestants import read_contestants
from studies.compare.same_images import find_test_sets
from training.data import load, phantom, split

FILES = [f"{kind}/{i}.png" for kind in ("no", "yes") for i in range(20)]
TRUTH = np.array([-1.0] * 20 + [1.0] * 20)
STUDIES = ("giaem", "dbscan", "map_score")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A small phantom in a folder of the user's, prepared below `var`."""
    images = tmp_path_factory.mktemp("data") / "slices"
    phantom.write(images, n_images=120, n_groups=60)
    return load(str(images), root=tmp_path_factory.mktemp("var"), say=lambda _: None), images


@pytest.fixture(scope="module")
def settings(dataset, tmp_path_factory):
    """Three studies that were concluded on one split, and one of them on another seed's."""
    data, images = dataset
    root = tmp_path_factory.mktemp("var")
    load(str(images), root=root, say=lambda _: None)
    settings = settings_of(root)
    about = {"name": data.name, "digest": data.digest}
    for position, study in enumerate((*STUDIES, "giaem")):
        seed = int(position == len(STUDIES))
        marks = f"{data.name}, seed 1" if seed else data.name
        made = Made(study, marks=marks, data=about | {"seed": seed})
        add_study(made, settings)
        scratch = tmp_path_factory.mktemp("scratch") / "files"
        publish_study(made, 1, test_answers(data, seed, noise=position), settings, scratch=scratch)
    return settings


def test_answers(data, seed, *, noise):
    """Answers to a test split, the better the less noise."""
    test = split(data.labels, data.groups, seed=seed).test
    scores = (
        data.labels[test] - 0.5 + np.random.default_rng(noise).normal(0, 0.3 + noise, len(test))
    )
    table = answers(data.manifest["file"].to_numpy()[test].tolist(), scores)
    return table.assign(group=data.groups[test])


test_answers.__test__ = False


@pytest.fixture
def run(settings, monkeypatch, capsys):
    """The command, in the folder of these studies: its exit status and what it said."""
    monkeypatch.setenv("VAR_DIR", str(settings.root))
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments):
        status = main(["compare", *arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return call


@pytest.fixture(scope="module")
def page(settings):
    """The page of three studies, by the command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAR_DIR", str(settings.root))
        for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        assert main(["compare", "giaem-slices dbscan map_score"]) == 0
    return settings.root / "reports" / "compare-dbscan-slices-giaem-slices-map_score-slices.html"


@pytest.mark.slow
def test_the_page_stands_alone_with_plotly_inside_once(page):
    text = page.read_text()
    assert text.count("plotly.js v") == 1 and "<script src=" not in text
    body = text.partition("<body>")[2]
    loaded = re.findall(r'src="([^"]{1,30})', body)
    assert loaded and all(source.startswith("data:image/webp") for source in loaded)
    (link,) = re.findall(r'href="(?!#)([^"]*)"', body)
    assert link.startswith("http://127.0.0.1:5000/#/compare-runs")
    assert "A research tool, not a medical device." in text
    assert "Nothing was asked of a test split for this page" in text


@pytest.mark.slow
def test_images_in_dispute_stand_with_every_answer_and_the_truth_below(page):
    table = pd.read_csv(page.with_name(page.stem + "-disagreements.csv"))
    cards = re.findall(r"<figure><img .*?</figure>", page.read_text())
    assert 0 < len(cards) <= min(24, table["group"].nunique())
    for card in cards:
        file = re.search(r"<small>(.*?)</small>", card)[1]
        row = table.set_index("file").loc[file]
        assert f"<b>truth: {'tumour' if row.label else 'no tumour'}</b>" in card
        marks = ["\N{CHECK MARK}" in line for line in card.split("<li>")[1:]]
        assert marks == [row[f"{study} (slices)"] == row.label for study in STUDIES]


@pytest.mark.slow
def test_the_record_has_one_run_a_comparison_however_often_it_is_made(run, page, settings):
    assert run("map_score", "dbscan", "giaem-slices")[0] == 0
    client = mlflow.MlflowClient(settings.tracking_uri, settings.tracking_uri)
    experiment = client.get_experiment_by_name("comparisons")
    (found,) = client.search_runs([experiment.experiment_id], "tags.study LIKE '%map_score%'")
    files = {file.path for file in client.list_artifacts(found.info.run_id)}
    kinds = (".html", ".md", ".csv", "-disagreements.csv")
    assert files == {f"{page.stem}{kind}" for kind in kinds}
    rows = pd.read_csv(page.with_suffix(".csv")).set_index(["is", "of", "minus", "metric"])
    value = rows.loc[("winner", "giaem-slices", np.nan, "f2"), "value"].item()
    assert found.data.metrics["f2/giaem-slices"] == pytest.approx(value)
    assert found.info.status == "FINISHED"


@pytest.mark.slow
def test_another_split_is_refused_and_shown_unpaired_when_asked_for(run, settings):
    status, said = run("giaem*")
    assert status == 2 and "giaem-slices and giaem-slices-seed-1 have different test" in said
    assert "seed 0; seed 1" in said and "ANYWAY=1" in said
    status, said = run("giaem*", "--anyway", "1")
    assert status == 0 and "Not paired: **giaem** with **giaem (seed 1)**, since only" in said
    assert "clearly better" not in said and "No difference shown" not in said
    table = settings.root / "reports" / "compare-giaem-slices-giaem-slices-seed-1.csv"
    assert set(pd.read_csv(table)["is"]) == {"winner"}


@pytest.mark.slow
def test_a_server_that_is_away_leaves_what_is_on_this_disk(run, page, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    status, said = run("dbscan", "map_score")
    assert status == 0 and "The comparison goes on with what is on this disk" in said
    assert "neither in MLflow nor on this disk" in said


@pytest.mark.slow
def test_the_link_opens_the_winners_runs_on_the_server_that_holds_them(page, settings):
    tracking = comparison.open_record(settings)
    found = read_contestants(["giaem (slices)", "dbscan (slices)"], settings, tracking)
    link = winners_link(found, "http://mlflow.example:5000/")
    assert link.startswith("http://mlflow.example:5000/#/compare-runs?runs=%5B%22run%20of%20giaem")
    assert winners_link(found[:1], settings.tracking_uri) is None


@pytest.mark.slow
def test_answers_come_from_mlflow_with_the_floors_beside_them(tmp_path, settings):
    made, scores = Made(marks="kept"), TRUTH + np.random.default_rng(0).normal(0, 0.6, 40)
    floors = pd.concat(
        [answers(FILES, s).assign(floor=name) for name, s in (("b", TRUTH), ("a", -TRUTH))]
    )
    table = answers(FILES, scores)
    publish_study(made, 1, table, settings, scratch=tmp_path / "scratch", floors=floors)
    keep_on_disk(made, 0, answers(FILES, -TRUTH), settings)
    search = add_study(made, settings)
    tracking = comparison.open_record(settings)
    (one,) = read_contestants([made.name], settings, tracking)
    assert one.answered.trial == 1
    assert one.answered.scored.metrics["auroc"] == roc_auc_score(TRUTH > 0, scores)
    (tests,) = find_test_sets([one])
    assert [(floor.name, floor.metrics["auroc"]) for floor in tests.floors] == [("b", 1), ("a", 0)]
    search.add_trial(completed(made, 3, 0.99, 0.9))
    (one,) = read_contestants([made.name], settings, tracking)
    assert one.answered.trial == 1 and "trial 3 has become the best since" in one.note()
    keep_on_disk(made, 3, answers(FILES, TRUTH), settings)
    (one,) = read_contestants([made.name], settings, tracking)
    assert (one.answered.trial, one.answered.scored.metrics["auroc"], one.note()) == (3, 1, "")


def test_nothing_to_compare_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAR_DIR", str(tmp_path / "new"))
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert main(["compare", ""]) == 2
    assert capsys.readouterr().err.startswith("There is no study to compare yet")
