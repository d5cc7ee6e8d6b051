"""The table of detectors and heads: what it shows, and that one command fills it and goes on."""

import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution

from models.heads import HEADS
from studies import table
from studies.__main__ import main
from studies.cells import CLOSING, Cell, seconds_left, sentence
from studies.finish import conclude
from studies.look import INK, SCALE
from studies.settings import Settings
from studies.study import AtLeast, Study, StudyError, find_study
from studies.table import Selection, check_selection, head_studies, make_table
from studies.table_report import Entry, Table, as_markdown, as_page, as_rows, heat
from training.cache import CacheError
from training.data import phantom
from training.detector import detector_module
from training.floors import evaluate_scored

QUICK = {"n_epochs": 3, "image_size": 32, "latent_dim": 4, "kl_weight": 1e-3}


def scored(name, scores):
    """Three healthy and three tumours, of which `scores >= 0` are called so."""
    scores = np.array(scores, dtype=float)
    return evaluate_scored(name, [0, 0, 0, 1, 1, 1], np.arange(6), scores, (scores >= 0) * 1)


PERFECT = scored("a", [-3, -2, -1, 1, 2, 3])  # AUROC 1, F1 1
ONE_FALSE_ALARM = scored("b", [-3, -2, 2.5, 1, 2, 3])  # AUROC 7/9, F1 (0.8 + 6/7) / 2
CHANCE = scored("always_tumor", [0, 0, 0, 0, 0, 0])  # AUROC 0.5, F1 (0 + 2/3) / 2


@pytest.fixture
def tables():
    entries = [
        Entry("cvae", "giaem", 25, ONE_FALSE_ALARM),
        Entry("cvae", "dbscan", 25, PERFECT),
        Entry("unet", "giaem", 3, state="failed", note="ValueError: x < 1"),
        Entry("unet", "dbscan"),
    ]
    return [Table("grouped", entries, [CHANCE], leak=0, facts={"digest": "0123"})]


def test_the_markdown_has_a_row_a_detector_and_the_floors_below(tables):
    lines = as_markdown(tables).splitlines()
    start = lines.index("| detector | giaem | dbscan | no head |")
    assert lines[start + 1 : start + 5] == [
        "| --- | ---: | ---: | ---: |",
        "| cvae | 0.778 / 0.829 | **1.000 / 1.000** | |",
        "| unet | failed | - | |",
        "| *always_tumor* | | | 0.500 / 0.333 |",
    ]


def test_a_cell_that_failed_says_why_below_its_table(tables):
    assert "- unet with giaem: ValueError: x < 1" in as_markdown(tables)
    assert "unet with giaem: ValueError: x &lt; 1" in as_page(tables)


def test_a_split_that_leaks_says_so(tables):
    leaking = Table("paper", tables[0].entries, [], leak=0.954, facts={})
    assert "Leaks nothing" in as_markdown(tables)
    assert "This split leaks" not in as_markdown(tables)
    assert "**This split leaks**: up to 95%" in as_markdown([leaking])
    assert "<strong>This split leaks</strong>" in as_page([leaking])


def test_the_rows_hold_each_cell_and_floor_with_its_intervals(tables):
    rows = as_rows(tables)
    assert rows.detector.tolist() == ["cvae", "cvae", "unet", "unet", "always_tumor"]
    assert rows.trials.tolist()[:4] == [25, 25, 3, 0]
    low, high = ONE_FALSE_ALARM.intervals["auroc"]
    assert rows.loc[0, ["auroc", "auroc_low", "auroc_high"]].tolist() == [7 / 9, low, high]
    assert rows.auroc.isna().tolist() == [False, False, True, True, False]


def test_the_page_stands_alone_and_marks_the_best_of_each_row_in_both_matrices(tables):
    page = as_page(tables)
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert page.count("<b>1.000</b>") == 2
    assert "<b>0.778</b>" not in page


def test_colours_go_from_chance_to_perfect_and_letters_stay_readable():
    def as_rgb(color):
        return "rgb({}, {}, {})".format(*(int(color[i : i + 2], 16) for i in (1, 3, 5)))

    assert heat(0.2) == heat(0.5) == (as_rgb(SCALE[0]), INK)
    assert heat(1.0) == (as_rgb(SCALE[-1]), "white")


def test_the_columns_are_the_studies_of_heads():
    assert [study.name for study in head_studies()] == list(HEADS)


def test_a_column_that_is_no_head_lists_those_there_are():
    with pytest.raises(StudyError, match=r"STUDY=brain_cvae is no column .* giaem, dbscan"):
        check_selection(Selection(head="brain_cvae"))


def test_an_unknown_row_is_refused_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAR_DIR", str(tmp_path))
    assert main(["table", "--detector", "brain_vae"]) == 2
    assert "brain_cvae" in capsys.readouterr().err


def test_an_error_of_many_lines_becomes_a_sentence():
    error = StudyError("Begun with another:\n  a: 1 -> 2\n  b: 3 -> 4\nUndo it.\nOr not.")
    assert sentence(error) == "Begun with another: a: 1 -> 2; b: 3 -> 4; Undo it. Or not."
    assert sentence(KeyError("x")) == "KeyError: 'x'"


def cell(head, *, n_finished, seconds=0.0, is_concluded=True):
    """A cell that shall have ten trials."""
    settings = Settings(Path(), "", "", trials=10)
    return Cell(
        head,
        head,
        quick_study(head),
        settings,
        n_finished=n_finished,
        seconds=seconds,
        is_concluded=is_concluded,
    )


def test_a_cell_is_done_with_its_trials_and_the_answers_of_the_best():
    assert not cell("giaem", n_finished=9).is_done
    assert cell("giaem", n_finished=10).is_done
    assert cell("giaem", n_finished=30).is_done
    assert not cell("giaem", n_finished=10, is_concluded=False).is_done


def test_the_time_left_is_that_of_each_heads_trials_so_far():
    slow, quick = cell("a", n_finished=5, seconds=20), cell("b", n_finished=10, seconds=10)
    new = cell("c", n_finished=0)
    assert seconds_left([slow], [slow, quick, new]) == CLOSING + 5 * 4
    assert seconds_left([new], [slow, quick, new]) == CLOSING + 10 * 4
    assert seconds_left([quick], [slow, quick, new]) == CLOSING
    assert seconds_left([new], [new]) is None


def test_what_is_expected_of_a_study_counts_until_it_has_a_pace_of_its_own():
    slow, new = cell("a", n_finished=5, seconds=20), cell("b", n_finished=0)
    expected = {"a": 7.0, "b": 50.0}
    assert seconds_left([new], [new], expected) == CLOSING + 50
    assert seconds_left([slow, new], [slow, new], expected) == 2 * CLOSING + 5 * 4 + 50


def test_a_cell_whose_time_was_too_short_for_its_trials_is_done_with_its_answers():
    short = replace(cell("giaem", n_finished=3), is_out_of_time=True)
    assert short.is_done and short.n_left == 0
    assert not replace(short, is_concluded=False).is_done


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "slices"
    phantom.write(folder, n_images=120, n_groups=60)
    return folder


@pytest.fixture
def settings(images, tmp_path):
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    tracking = f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"
    return Settings(tmp_path, storage, tracking, data=str(images), trials=2)


def quick_fit(params, lab, news):
    giaem = find_study("giaem")
    return giaem.fit({"anomaly_threshold": 0.3, "tumor_index": params["x"], **QUICK}, lab, news)


def quick_study(name, fit=quick_fit):
    """A head study of one parameter over a tiny detector; no trial of it is infeasible."""
    return Study(
        name=name,
        doc="Quick.",
        space={"x": FloatDistribution(0, 1)},
        fit=fit,
        score=find_study("giaem").score,
        conclude=conclude,
        constraints=(AtLeast("specificity", 0.0),),
    )


def failing_with(error):
    def fit(params, lab, news):
        raise error

    return fit


@pytest.fixture
def columns(monkeypatch):
    """Makes the table of one detector and of the studies that a test wants."""
    rows = {"brain_cvae": detector_module("brain_cvae")}
    monkeypatch.setattr(table, "detectors", lambda: rows)

    def use(*studies):
        monkeypatch.setattr(table, "head_studies", lambda: list(studies))

    return use


def n_trials(settings):
    summaries = optuna.get_all_study_summaries(settings.storage_url)
    return {summary.study_name: summary.n_trials for summary in summaries}


@pytest.mark.slow
def test_one_command_fills_the_table_and_a_second_runs_nothing(columns, settings, capsys):
    columns(quick_study("first"), quick_study("second"))
    assert make_table(settings, Selection())
    said = capsys.readouterr().out
    assert "Cells left: 4 of 4" in said and "[4/4] brain_cvae with second, paper split" in said
    assert (
        "trial 0" not in said
        and "trial 0" in (settings.root / "reports" / "table-slices.log").read_text()
    )
    rows = pd.read_csv(settings.root / "reports" / "table-slices.csv")
    assert rows.groupby("split").size().to_dict() == {"grouped": 6, "paper": 6}
    assert rows.auroc.notna().all()
    done = n_trials(settings)
    assert set(done.values()) == {2} and len(done) == 4
    assert make_table(settings, Selection())
    assert "Every cell is done." in capsys.readouterr().out
    assert n_trials(settings) == done
    assert rows.equals(pd.read_csv(settings.root / "reports" / "table-slices.csv"))


@pytest.mark.slow
def test_a_broken_cell_leaves_the_others(columns, settings, capsys):
    broken = quick_study("broken", failing_with(ValueError("x is odd")))
    columns(broken, quick_study("sound"))
    assert make_table(settings, Selection(split="grouped"))
    rows = pd.read_csv(settings.root / "reports" / "table-slices.csv").set_index(["split", "head"])
    assert rows.loc[("grouped", "broken"), "note"] == "ValueError: x is odd"
    assert rows.loc[("grouped", "sound"), "trials"] == 2
    assert 0 <= rows.loc[("grouped", "sound"), "auroc"] <= 1
    assert "brain_cvae | failed | **" in capsys.readouterr().out


@pytest.mark.slow
def test_what_would_fail_every_cell_ends_the_table(columns, settings):
    columns(quick_study("full", failing_with(CacheError("The disk is full."))))
    with pytest.raises(CacheError, match="disk is full"):
        make_table(settings, Selection(split="grouped"))


@pytest.mark.slow
def test_a_column_alone_is_run_and_the_others_stay_in_the_table(columns, settings):
    columns(quick_study("first"), quick_study("second"))
    make_table(settings, Selection("grouped", "brain_cvae", "first"))
    make_table(settings, Selection("grouped", "brain_cvae", "second"))
    rows = pd.read_csv(settings.root / "reports" / "table-slices.csv")
    grouped = rows[(rows.split == "grouped") & rows["head"].notna()]
    assert grouped.auroc.notna().tolist() == [True, True]
    assert set(n_trials(settings)) == {"first (slices)", "second (slices)"}


@pytest.mark.slow
def test_an_interrupt_ends_the_table_and_the_same_command_goes_on(columns, settings, capsys):
    calls = []

    def fit(params, lab, news):
        calls.append(params)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return quick_fit(params, lab, news)

    columns(quick_study("stopped", fit), quick_study("next"))
    assert not make_table(settings, Selection(split="grouped"))
    assert "The same command goes on from here." in capsys.readouterr().out
    assert set(n_trials(settings)) == {"stopped (slices)"}
    assert make_table(settings, Selection(split="grouped"))
    rows = pd.read_csv(settings.root / "reports" / "table-slices.csv").set_index(["split", "head"])
    assert rows.loc["grouped"].trials.tolist()[:2] == [2, 2]
