"""The report stands alone, draws what there is, and says in words what cannot be drawn."""

import re
import shutil
import subprocess
import time
from dataclasses import replace

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image
from plotly.offline import get_plotlyjs

from studies import figures, result_figures
from studies.report import ReportInput, build_report
from studies.result_figures import Surface, SurfacePoint
from studies.summary import Findings, write_summary, write_words
from training.floors import evaluate_scored
from training.localization import MEASURES, Localization

SPACE = {
    "anomaly_threshold": FloatDistribution(0, 1),
    "alpha": FloatDistribution(1e-3, 1, log=True),
    "loss": CategoricalDistribution(("mse", "l1")),
}
N_PLOTS = 12  # seven of the search, the surface, four of the test split
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def trial(value, *, specificity=0.8, state=TrialState.COMPLETE, epochs=(), **params):
    """A finished trial; its constraint is a specificity of at least 0.5."""
    params = {"anomaly_threshold": 0.3, "alpha": 0.1, "loss": "mse"} | params
    made = create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        params=params,
        distributions=SPACE,
        intermediate_values=dict(enumerate(epochs, start=1)),
    )
    if state == TrialState.COMPLETE:
        made.set_constraint("specificity", 0.5 - specificity)
    return made


def study_of(*trials):
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    return study


def random_trials(n):
    rng = np.random.default_rng(0)
    return [
        trial(
            rng.uniform(),
            specificity=rng.uniform(0.3, 1),
            anomaly_threshold=rng.uniform(),
            alpha=10 ** rng.uniform(-3, 0),
            loss=str(rng.choice(["mse", "l1"])),
        )
        for _ in range(n)
    ]


def scored(name, scores):
    labels = np.array([0, 0, 0, 1, 1, 1])
    return evaluate_scored(name, labels, np.arange(6), scores, (scores >= 0).astype(int))


@pytest.fixture
def report():
    thresholds = indices = np.linspace(0, 1, 5)
    f2 = np.add.outer(thresholds, indices) / 2
    return ReportInput(
        title="giaem on phantom",
        summary="**On test it beats every floor** on F2.\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |",
        trials=study_of(*random_trials(30), trial(0, state=TrialState.FAIL)),
        params=list(SPACE),
        metric="f2",
        specificity_floor=0.5,
        winner=scored("giaem", np.array([-3.0, -2, 1, -1, 2, 3])),
        floors=[scored("always_tumor", np.zeros(6))],
        surface=Surface(
            thresholds=thresholds,
            indices=indices,
            f2=f2,
            specificity=1 - f2,
            optimum=SurfacePoint(0.5, 0.5, 0.5),
            found=SurfacePoint(0.25, 0.5, 0.375),
            tried=np.array([[0.25, 0.5], [1, 1]]),
        ),
        grids={"the winner on test": Image.new("RGB", (40, 20), "grey")},
        facts={"digest": "0123abcd", "split": "grouped"},
    )


def test_a_report_of_a_thousand_trials_is_small_and_quick(report):
    started = time.process_time()
    page = build_report(replace(report, trials=study_of(*random_trials(1000))))
    assert time.process_time() - started < 15
    assert len(page) < 7e6  # of which plotly is 5


def test_the_table_of_trials_holds_the_complete_ones_and_their_feasibility():
    study = study_of(
        trial(0.9, specificity=0.4),
        trial(0.0, state=TrialState.PRUNED),
        trial(0.7, specificity=0.5, alpha=0.2),
    )
    table = figures.trial_table(study, ["alpha"])
    assert table.number.tolist() == [0, 2]
    assert table.feasible.tolist() == [False, True]
    assert table.alpha.tolist() == [0.1, 0.2]


def test_an_axis_of_a_log_parameter_has_powers_and_one_of_choices_their_codes():
    study = study_of(trial(0.1, alpha=0.01), trial(0.2, alpha=1.0, loss="l1"))
    table = figures.trial_table(study, ["alpha", "loss"])
    alpha = figures.axis(study, "alpha", table.alpha)
    loss = figures.axis(study, "loss", table.loss)
    assert alpha.positions.tolist() == [-2, 0]
    assert alpha.ticks["ticktext"] == ["0.01", "0.046", "0.22", "1"]
    assert loss.positions.tolist() == [0, 1]
    assert loss.ticks["ticktext"] == ["mse", "l1"]


def test_an_infeasible_trial_is_never_the_best_so_far():
    study = study_of(trial(0.4), trial(0.9, specificity=0.1), trial(0.6), trial(0.5))
    best = figures.history(study, metric="f2").data[-1]
    assert best.name == "best so far"
    assert list(best.y) == [0.4, 0.6, 0.6]


def test_parallel_coordinates_leave_out_infeasible_trials():
    study = study_of(trial(0.4), trial(0.9, specificity=0.1), trial(0.6))
    lines = figures.parallel_coordinates(study, ["alpha"], metric="f2").data[0]
    assert [dimension.label for dimension in lines.dimensions] == ["alpha", "f2"]
    assert list(lines.dimensions[1]["values"]) == [0.4, 0.6]


def test_a_contour_takes_no_more_panels_than_can_be_read():
    names = list("abcdef")
    space = {name: FloatDistribution(0, 1) for name in names}
    rng = np.random.default_rng(1)
    study = optuna.create_study(direction="maximize")
    for _ in range(40):
        params = {name: rng.uniform() for name in names}
        study.add_trial(create_trial(value=params["f"], params=params, distributions=space))
    figure = figures.contour(study, names, metric="f2")
    assert sum(trace.type == "contour" for trace in figure.data) == 6  # pairs of four
    assert "f" in {axis.title.text for axis in figure.select_xaxes()} | {
        axis.title.text for axis in figure.select_yaxes()
    }


def test_epochs_of_many_trials_are_one_trace_an_outcome_with_gaps():
    study = study_of(
        trial(0.4, epochs=(0.1, 0.2)),
        trial(0.5, epochs=(0.3,)),
        trial(0.0, state=TrialState.PRUNED, epochs=(0.05,)),
    )
    complete, pruned = figures.epochs(study).data
    assert list(complete.x) == [1, 2, None, 1, None]
    assert list(complete.y) == [0.1, 0.2, None, 0.3, None]
    assert pruned.name == "PRUNED"


def test_the_surface_is_blank_where_the_specificity_is_too_low(report):
    heat = result_figures.giaem_surface(report.surface, specificity_floor=0.5).data[0]
    assert heat.z[0][2] == 0.25  # tumor_index 0, anomaly_threshold 0.5: specificity 0.75
    assert np.isnan(heat.z[4][4])


def test_the_report_stands_alone_with_plotly_in_it_once(report):
    page, library = build_report(report), get_plotlyjs()
    assert page.count(library) == 1
    assert "://" not in page.replace(library, "")
    assert page.replace(library, "").count("Plotly.newPlot(") == N_PLOTS
    assert page.count('"showSendToCloud": false') == N_PLOTS


def test_the_report_has_every_section_and_the_winner_stands_out(report):
    page = build_report(report)
    anchors = re.findall(r'<section id="(\w+)">', page)
    assert anchors == ["result", "methods", "search", "surface", "test", "examples", "facts"]
    assert re.findall(r'<tr class="(\w*)"><td>(\w+)', page) == [
        ("winner", "giaem"),
        ("infeasible", "always_tumor"),
    ]
    assert "<strong>On test it beats every floor</strong>" in page
    assert "data:image/webp;base64," in page
    assert "0123abcd" in page


def a_localization():
    return Localization(
        metrics=dict.fromkeys(MEASURES, 0.9) | {"pixel_auroc": 0.954},
        intervals=dict.fromkeys(MEASURES, (0.81, 0.97)),
        chance=dict.fromkeys(MEASURES, 0.05),
        n_images=160,
        n_groups=28,
    )


def test_the_places_stand_after_the_test_plots_with_interval_and_chance(report):
    page = build_report(replace(report, localization=a_localization()))
    anchors = re.findall(r'<section id="(\w+)">', page)
    assert anchors[anchors.index("test") + 1] == "where"
    section = page[page.index('<section id="where">') : page.index('<section id="examples">')]
    assert re.findall(r"<tr><td>(\w+)<small>", section) == list(MEASURES)
    assert "<td>0.954<small>0.81 &ndash; 0.97</small></td><td>0.050</td>" in section
    assert "160 outlined tumour images" in section and "28 groups" in section


def test_the_summary_says_where_the_tumour_is_only_where_it_is_known():
    findings = Findings(
        name="giaem on phantom",
        doc="A study.",
        metric="f2",
        constraints=(),
        facts={},
        counts={},
        n_infeasible=0,
        best=None,
        winner=None,
        floors=[],
        leaks={},
    )
    assert "Where the tumour is" not in write_words(findings)
    assert "where the tumour is" not in write_summary(findings)
    known = replace(findings, localization=a_localization())
    assert "in 90% (81% to 97%; chance 5%); pixel AUROC 0.954." in write_words(known)
    assert "| **found** | 0.954 (0.810 to 0.970) |" in write_summary(known)


def test_without_a_winner_the_report_shows_no_test_plots(report):
    page = build_report(replace(report, winner=None, surface=None, grids={}))
    anchors = re.findall(r'<section id="(\w+)">', page)
    assert anchors == ["result", "methods", "search", "facts"]
    assert 'class="tiles"' not in page


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([], "The study has no trials."),
        ([trial(0.5)], "Importances need at least four completed trials"),
        ([trial(0.5)] * 8, "A contour needs five feasible trials and two parameters that vary."),
        ([trial(0.5, specificity=0.1)] * 3, "No completed trial keeps the constraints."),
        ([trial(0, state=TrialState.PRUNED, epochs=(0.1,))] * 3, "No trial was completed."),
        ([trial(0, state=TrialState.FAIL)] * 3, "No trial was completed."),
    ],
    ids=["none", "one", "constant", "infeasible", "pruned", "failed"],
)
def test_what_cannot_be_drawn_is_said(report, trials, said):
    page = build_report(replace(report, trials=study_of(*trials), winner=None))
    assert f'<p class="empty">{said}' in page


def test_markup_in_names_stays_text(report):
    odd = replace(
        report, title="<script>alert(1)</script>", facts={"<b>": "<i>"}, summary="<u>x</u>"
    )
    page = build_report(odd).replace(get_plotlyjs(), "")
    assert "<script>alert" not in page
    assert "<u>" not in page
    assert "&lt;b&gt;" in page


@pytest.mark.slow
def test_a_thousand_trials_make_a_report_under_12_mb_in_15_seconds(report, tmp_path):
    started = time.perf_counter()
    page = build_report(replace(report, trials=study_of(*random_trials(1000))))
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    assert time.perf_counter() - started < 15
    assert (tmp_path / "report.html").stat().st_size < 12e6


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the report with")
def test_a_browser_draws_every_plot(report, tmp_path):
    (tmp_path / "report.html").write_text(build_report(report), encoding="utf-8")
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-unsafe-swiftshader"),
        *("--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--virtual-time-budget=20000", "--dump-dom", (tmp_path / "report.html").as_uri()),
    ]
    page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    drawn = re.findall(r'class="plotly-graph-div js-plotly-plot"', page)
    assert len(drawn) == N_PLOTS
    assert page.count('class="main-svg"') >= N_PLOTS
    assert 'class="no-webgl"' not in page
