"""The plots of a search whose trials have different parameters."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import create_trial

from studies import figures

SPACE = {
    "detector": CategoricalDistribution(["cvae", "patches"]),
    "smoothing": FloatDistribution(0, 4),
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "share": FloatDistribution(0, 1),
    "never": FloatDistribution(0, 1),
}
PARAMS = list(SPACE)


def trial(value, **params):
    return create_trial(
        value=value, params=params, distributions={name: SPACE[name] for name in params}
    )


@pytest.fixture
def study():
    """Twenty trials of two branches: `lr` is there with cvae alone, `share` with patches alone."""
    rng = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize")
    for i in range(20):
        own = {"lr": 10 ** rng.uniform(-4, -2)} if i % 2 else {"share": rng.uniform()}
        detector = "cvae" if i % 2 else "patches"
        study.add_trial(trial(rng.uniform(), detector=detector, smoothing=rng.uniform(0, 4), **own))
    return study


def test_a_trial_that_lacks_a_parameter_passes_below_its_axis(study):
    dimensions = figures.parallel_coordinates(study, PARAMS, metric="f2").data[0].dimensions
    assert [d.label for d in dimensions] == ["detector", "smoothing", "lr", "share", "f2"]
    for dimension in dimensions[2:4]:
        values = np.asarray(dimension["values"])
        assert dimension.ticktext[0] == "not used"
        assert dimension.range[0] == dimension.tickvals[0] == values.min()
        assert (values == values.min()).sum() == 10
        assert np.isfinite(dimension.tickvals).all() and np.isfinite(values).all()
    assert "not used" not in (dimensions[0].ticktext or ())


def test_of_many_parameters_those_that_most_trials_have_are_drawn_in_their_order(
    study, monkeypatch
):
    monkeypatch.setattr(figures, "MOST_AXES", 3)
    study.add_trial(trial(0.5, detector="patches", smoothing=1.0, share=0.5))
    dimensions = figures.parallel_coordinates(study, PARAMS, metric="f2").data[0].dimensions
    assert [d.label for d in dimensions] == ["detector", "smoothing", "share", "f2"]


def test_a_slice_shows_the_trials_that_have_the_parameter(study):
    figure = figures.slices(study, PARAMS, metric="f2")
    assert [len(trace.x) for trace in figure.data] == [20, 20, 10, 10]
    assert [trace.showlegend for trace in figure.data] == [True, False, False, False]


def test_a_contour_never_pairs_parameters_of_two_branches(study):
    figure = figures.contour(study, PARAMS, metric="f2")
    names = {axis.title.text for axis in [*figure.select_xaxes(), *figure.select_yaxes()]}
    assert not {"lr", "share"} <= names
    assert all(np.isfinite(trace.z).all() for trace in figure.data if trace.type == "contour")


def test_importances_know_the_parameters_of_a_branch(study, recwarn):
    shares = figures.importance_shares(study, PARAMS)
    assert set(shares) == set(PARAMS) - {"never"}
    assert sum(shares.values()) == pytest.approx(1)
    assert not recwarn.list


def test_trials_without_any_parameter_have_no_slices():
    study = optuna.create_study(direction="maximize")
    study.add_trials([trial(0.1), trial(0.2)])
    with pytest.raises(figures.NotPlottable, match=r"^No completed trial has a parameter\.$"):
        figures.slices(study, PARAMS, metric="f2")
