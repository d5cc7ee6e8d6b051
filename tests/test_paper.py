"""`make paper`: its rows, what each is given, what the table says, and that one command goes on."""

import os
import re
import signal
from dataclasses import replace

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution

from models.heads import HEADS
from studies import paper
from studies.__main__ import main
from studies.paper import make_paper
from studies.paper_effort import FULL, QUICK, Effort, Search
from studies.paper_figures import HEADER, ROW_LABEL, draw_preprocessing, draw_samples
from studies.paper_page import f1_dots, write_page
from studies.paper_report import Line, Measured, Paper, as_markdown, as_metrics, as_table
from studies.paper_rows import CNN, GIAEM, ROWS, SOURCES, Row
from studies.settings import Settings
from studies.study import find_study
from training.data import load, phantom, split
from training.data.sources import source_folder
from training.data.synthetic import Origin, SyntheticSet
from training.floors import evaluate_scored
from training.generator import GeneratorSpec
from training.grids import GAP, TILE

CVAE = {"n_epochs": 3, "image_size": 32, "latent_dim": 4, "kl_weight": 1e-3, "batch_size": 8}
VAE = {
    "image_size": 32,
    "base_channels": 8,
    "latent_dim": 8,
    "lr": 5e-3,
    "kl_weight": 0.05,
    "loss": "mse",
    "prior": "gaussian",
    "n_epochs": 4,
    "batch_size": 8,
}
POINTS = tuple({"anomaly_threshold": 0.5, "tumor_index": share} for share in (0.95, 0.01))
TINY = Effort(
    label="paper-tiny",
    n_seeds=1,
    n_images=48,
    generators={"vae": VAE, "gan": {}},
    searches={"giaem": Search(2, fixed=CVAE, first=POINTS), "brain_cnn": Search(1)},
    seconds={"vae": 3.0, "gan": 3.0, "giaem": 2.0, "brain_cnn": 2.0},
    probe=1.0,
)
REAL, MADE = (Row(GIAEM, source) for source in SOURCES[:2])


def scored(scores):
    """Three healthy and three tumours, of which `scores >= 0` are called so."""
    scores = np.array(scores, dtype=float)
    return evaluate_scored("a", [0, 0, 0, 1, 1, 1], np.arange(6), scores, (scores >= 0) * 1)


PERFECT = scored([-3, -2, -1, 1, 2, 3])
ONE_FALSE_ALARM = scored([-3, -2, 2.5, 1, 2, 3])  # accuracy 5/6, precision 3/4, F1 6/7
ALL_TUMORS = scored([0, 0, 0, 0, 0, 0])  # accuracy 1/2, F1 2/3; two-class F1 1/3


@pytest.fixture
def table():
    """The CNN on real images under two seeds, GIAEM on VAE-made ones that failed."""
    cnn = next(row for row in ROWS if row.model == CNN and row.source.is_real)
    giaem = next(row for row in ROWS if row.model == GIAEM and row.source.title == "VAE-made")
    floors = {
        "classifier": {"nearest_neighbor": Measured([ONE_FALSE_ALARM])},
        "detector": {"giaem_on_images": Measured([ALL_TUMORS])},
    }
    return Paper(
        name="paper",
        protocol="grouped",
        seeds=[0, 1],
        lines=[
            Line(cnn, Measured([PERFECT, ONE_FALSE_ALARM])),
            Line(giaem, Measured([]), "failed", ("ValueError: x < 1",)),
        ],
        floors=floors,
        paper_floors=floors,
        leak=0.0,
        facts={"digest": "0123"},
        figures={},
    )


def test_every_model_is_trained_on_every_source_and_the_papers_nine_rows_have_its_numbers():
    assert len(ROWS) == len(set(ROWS)) == 25
    known = [row for row in ROWS if row.paper]
    assert len(known) == 9 and all(row.floor and row.why for row in known)
    assert {row.model.title for row in known} == {
        "CNN",
        "CVAE + GIAEM",
        "CVAE + Global KMeans",
    }
    assert not any("GAN" in row.source.title for row in known)


@pytest.mark.parametrize("effort", [QUICK, FULL], ids=lambda effort: effort.label)
def test_what_a_row_is_given_is_known_to_its_model(effort):
    for name, search in effort.searches.items():
        study = search.narrowed(find_study(name))
        for value in search.fixed:
            assert study.space[value] == CategoricalDistribution([search.fixed[value]])
        assert study.first and all(set(point) == set(study.space) for point in study.first)
        assert set(effort.seconds) == {*effort.generators, *effort.searches}
    for name in effort.generators:
        assert (
            effort.generator(name, 3) == GeneratorSpec(name, effort.generators[name], 3).complete()
        )


def test_the_searches_are_those_of_the_rows_models():
    studies = {row.model.study for row in ROWS}
    assert set(QUICK.searches) == set(FULL.searches) == studies
    assert studies - {"brain_cnn"} < set(HEADS)


def test_a_narrowed_study_keeps_what_is_searched_and_begins_at_its_points():
    giaem = find_study("giaem")
    study = Search(3, fixed={"n_epochs": 2}).narrowed(giaem)
    assert list(study.space) == ["n_epochs", *giaem.space]
    assert study.first == tuple({**point, "n_epochs": 2} for point in giaem.first)


def test_the_markdown_has_means_and_spreads_beside_the_papers_numbers(table):
    text = as_markdown(table)
    spread = 100 * np.std([1, 5 / 6], ddof=1)
    cnn, giaem = [line for line in text.splitlines() if line.startswith("| C")]
    assert f"| CNN | real | 91.7 ± {spread:.1f} | 87.5 ± " in cnn
    assert "| 96.67 / 95.42 / 97.99 / 96.69 | nearest_neighbor: 83.3 / 75.0 / 100.0 / 85.7 |" in cnn
    assert giaem.startswith("| CVAE + GIAEM | VAE-made | failed | - | - | - | - | 80.08 / ")
    assert giaem.endswith("| giaem_on_images: 50.0 / 25.0 / 50.0 / 33.3 |")
    assert "- CVAE + GIAEM, VAE-made: ValueError: x < 1" in text


def test_one_seed_has_an_interval_in_place_of_a_spread(table):
    line = replace(table.lines[0], measured=Measured([ONE_FALSE_ALARM]))
    text = as_markdown(replace(table, seeds=[0], lines=[line]))
    low, high = ONE_FALSE_ALARM.intervals["accuracy"]
    assert f"| CNN | real | 83.3 ({100 * low:.1f} to {100 * high:.1f}) | 75.0 | 100.0 |" in text


def test_the_papers_mistakes_are_named_once_with_what_needs_no_network(table):
    text = as_markdown(table).split("### What explains")[1]
    assert "**CNN** trained on real images." in text
    assert "Under the paper's conditions `nearest_neighbor` has 83.3 / 75.0 / 100.0 / 85.7." in text
    twice = replace(table, lines=[*table.lines, table.lines[1]])
    assert "trained on VAE-made, on VAE-made images." in as_markdown(twice)


def test_a_split_that_leaks_says_so(table):
    assert "This split leaks nothing" in as_markdown(table)
    leaking = as_markdown(replace(table, leak=0.954))
    assert "**This split leaks**: up to 95%" in leaking


def test_the_rows_of_the_csv_are_in_percent_with_each_spread(table):
    rows = as_table(table)
    assert rows.model.tolist()[:2] == ["CNN", "CVAE + GIAEM"]
    first = rows.iloc[0]
    assert first.accuracy == pytest.approx(100 * (1 + 5 / 6) / 2)
    assert first.accuracy_sd == pytest.approx(100 * np.std([1, 5 / 6], ddof=1))
    assert (first.paper_f1, first.explained_by) == (96.69, "nearest_neighbor")
    assert first.explained_f1 == pytest.approx(600 / 7)
    assert rows.iloc[1].seeds == 0 and np.isnan(rows.iloc[1].accuracy)
    floor = rows[(rows.model == "giaem_on_images") & (rows.split == "grouped")].iloc[0]
    assert floor.f1 == pytest.approx(100 / 3)


def test_the_metrics_that_are_logged_are_named_by_model_and_source(table):
    metrics = as_metrics(table)
    assert metrics["brain_cnn_real_accuracy"] == pytest.approx((1 + 5 / 6) / 2)
    assert metrics["giaem_on_images_detector_f1"] == pytest.approx(1 / 3)
    assert not any(name.startswith("giaem_vae") for name in metrics)


def test_the_page_stands_alone_and_shows_markup_as_text(table):
    page = re.sub("<script.*?</script>", "", write_page(table), flags=re.DOTALL)
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page)
    assert "ValueError: x &lt; 1" in page
    assert page.count("<td rowspan=") == 2 + 2  # a model each, a scheme's floors each


def test_the_plot_has_a_dot_for_ours_the_papers_and_what_needs_no_network(table):
    dots = {trace.name: list(trace.x) for trace in f1_dots(table).data if trace.name}
    assert dots["the paper"] == [96.69, 67.09]
    assert dots["ours"] == pytest.approx([100 * (1 + 6 / 7) / 2])
    assert dots["no network, the paper's conditions"] == pytest.approx([600 / 7, 100 / 3])


def test_preprocessing_is_shown_from_the_files_themselves(images, tmp_path):
    folder = source_folder(str(images), tmp_path)
    dataset = load(str(images), root=tmp_path, say=lambda _: None)
    picture = draw_preprocessing(dataset, folder)
    framed = dataset.images[np.random.default_rng(0).choice(np.flatnonzero(dataset.labels == 0))]
    shown = picture.crop((ROW_LABEL + 3 * (TILE + GAP), HEADER, picture.width - GAP, HEADER + TILE))
    pixels = np.asarray(shown.convert("L").resize((128, 128)))
    assert folder == images
    assert np.corrcoef(pixels.ravel(), framed.ravel())[0, 1] > 0.98


def test_made_slices_stand_below_real_ones_of_other_groups(phantom, tmp_path):
    splits = split(phantom.labels, phantom.groups, scheme="classifier")
    labels, grey = np.repeat([0, 1], 9), np.repeat([50, 200], 9).astype(np.uint8)
    images = np.broadcast_to(grey[:, None, None], (18, 128, 128)).copy()
    origin = Origin("vae", "", {}, 0, "", "", "head", "grouped", "classifier", {}, {})
    made = SyntheticSet("vae", tmp_path, origin, [], [], images, labels)
    sheets = draw_samples(phantom, splits.train, {"VAE": made})
    assert list(sheets) == [
        "Figure 3. Real and made slices, no tumour",
        "Figure 3. Real and made slices, tumour",
    ]
    for sheet, value in zip(sheets.values(), (50, 200), strict=True):
        below = np.asarray(sheet.convert("L"))[-GAP - 100 : -GAP - 20, -GAP - 900 : -GAP - 880]
        assert (below == value).all()


def test_generated_images_are_no_data_to_fill_the_table_from(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    made = tmp_path / "synthetic" / "vae"
    for name in ("yes", "no"):
        (made / name).mkdir(parents=True)
    (made / "manifest.json").write_text("{}")
    assert main(["paper", "--data", str(made)]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"DATA={made} holds generated images") and "\n" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds", "0"], "SEEDS must be a whole number of at least 1, got '0'."),
        (["--quick", "maybe"], "QUICK must be 0 or 1, got 'maybe'."),
        (["--split", "foo"], "'foo'"),
        (["--data", "/nowhere"], "DATA must be"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    try:
        status = main(["paper", *arguments])
    except SystemExit as end:
        status = end.code
    message = capsys.readouterr().err.strip()
    assert status == 2 and said in message and "\n" not in message


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "slices"
    phantom.write(folder, n_images=200, n_groups=100)
    return folder


@pytest.fixture
def settings(images, tmp_path):
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    tracking = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    return Settings(tmp_path, storage, tracking, data=str(images), device="cpu")


def make(settings, *rows, effort=TINY):
    return make_paper(settings, effort, rows=rows)


def csv(settings):
    return pd.read_csv(settings.root / "reports" / "paper-tiny-slices.csv").set_index("model")


def n_trials(settings):
    summaries = optuna.get_all_study_summaries(settings.storage_url)
    return {summary.study_name: summary.n_trials for summary in summaries}


@pytest.mark.slow
def test_one_command_makes_the_sets_and_fills_the_rows_and_a_second_runs_nothing(settings, capsys):
    assert make(settings, REAL, MADE)
    said = capsys.readouterr().out
    assert "Cells left: 2 of 2 (about " in said
    assert "[2/2] CVAE + GIAEM on VAE-made, seed 0: AUROC" in said and "trial 0" not in said
    done = n_trials(settings)
    assert done == {
        "giaem (slices, paper-tiny)": 2,
        "giaem (slices, trained on vae, paper-tiny)": 2,
    }
    made = settings.root / "synthetic" / "paper-tiny-slices" / "detector" / "vae"
    assert len(list((made / "no").glob("*.png"))) == 48 and not (made / "yes").exists()
    rows = csv(settings)
    assert rows.loc["CVAE + GIAEM", "seeds"].tolist() == [1, 1]
    assert rows[rows.trained_on == "no network"].accuracy.notna().all()
    page = (settings.root / "reports" / "paper-tiny-slices.html").read_text()
    assert "Figure 2. Pre-processing" in page and "Figures 4 and 5." in page
    assert make(settings, REAL, MADE)
    assert "Every cell is done." in capsys.readouterr().out
    assert n_trials(settings) == done and rows.equals(csv(settings))
    check_run(settings, rows)


def check_run(settings, rows):
    """One run, with the table's files and numbers, however often the command was called."""
    client = mlflow.MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name("paper")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["data"] == "slices"
    accuracy = rows.loc["CVAE + GIAEM", "accuracy"].tolist()
    logged = [run.data.metrics[f"giaem_{source}_accuracy"] for source in ("real", "vae")]
    assert [100 * value for value in logged] == pytest.approx(accuracy)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {f"paper-tiny-slices.{kind}" for kind in ("md", "csv", "html")}


@pytest.mark.slow
def test_a_set_that_cannot_be_made_leaves_the_other_rows(settings, capsys):
    broken = replace(TINY, generators={"vae": VAE, "gan": {"depth": 3}})
    assert make(settings, Row(GIAEM, SOURCES[3]), Row(GIAEM, SOURCES[4]), REAL, effort=broken)
    said = capsys.readouterr().out
    why = "TrainingError: gan has no hyperparameter depth."
    assert f"on GAN-made, seed 0: {why}" in said
    assert f"on real + GAN-made, seed 0: {why}" in said
    assert csv(settings).loc["CVAE + GIAEM"].set_index("trained_on").loc["real", "seeds"] == 1


@pytest.mark.slow
def test_a_study_whose_time_is_over_is_done(settings, capsys):
    short = replace(
        TINY,
        searches={**TINY.searches, "giaem": Search(500, timeout=2.0, fixed=CVAE, first=POINTS)},
    )
    assert make(settings, REAL, effort=short)
    [n] = n_trials(settings).values()
    assert 1 <= n < 500
    assert make(settings, REAL, effort=short)
    assert "Every cell is done." in capsys.readouterr().out
    assert list(n_trials(settings).values()) == [n]


@pytest.mark.slow
def test_an_interrupt_ends_the_table_and_the_same_command_goes_on(settings, capsys, monkeypatch):
    giaem, calls = find_study("giaem"), []

    def fit(params, lab, news):
        calls.append(params)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return giaem.fit(params, lab, news)

    monkeypatch.setattr(paper, "find_study", lambda name: replace(giaem, fit=fit))
    assert not make(settings, REAL)
    assert "The same command goes on from here." in capsys.readouterr().out
    assert make(settings, REAL)
    assert csv(settings).loc["CVAE + GIAEM", "seeds"] == 1
