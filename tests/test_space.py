import json

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from studies.space import Capped, When, capped, describe, is_conditional, suggest, widest

SPACE = {
    "eps": FloatDistribution(1.0, 10.0, log=True),
    "min_samples": Capped(IntDistribution(5, 100), high=lambda chosen: int(10 * chosen["eps"])),
    "loss": CategoricalDistribution(["mse", "l1"]),
}

CONDITIONAL = {
    "detector": CategoricalDistribution(["cvae", "patches", "ensemble"]),
    "kind": When(CategoricalDistribution(["nearest", "bank"]), "detector", ("patches",)),
    "n_epochs": When(IntDistribution(1, 40), "detector", ("cvae", "ensemble")),
    "n_neighbors": When(Capped(IntDistribution(1, 9), high=lambda _: 3), "kind", ("bank",)),
    "smoothing": FloatDistribution(0.0, 4.0),
}


def test_a_point_has_every_parameter_in_the_order_of_the_space():
    trial = optuna.trial.FixedTrial({"eps": 2.0, "min_samples": 20, "loss": "l1"})
    assert list(suggest(trial, SPACE).items()) == [
        ("eps", 2.0),
        ("min_samples", 20),
        ("loss", "l1"),
    ]


def test_a_capped_integer_stays_below_what_was_chosen_before_it():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        trial = study.ask()
        params = suggest(trial, SPACE)
        assert 5 <= params["min_samples"] <= 10 * params["eps"]
        study.tell(trial, 0.0)


def test_the_cap_never_exceeds_the_widest_range():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    space = {"n": Capped(IntDistribution(5, 7), high=lambda chosen: 1000)}
    assert max(suggest(study.ask(), space)["n"] for _ in range(30)) == 7


def test_widest_is_a_box_of_plain_distributions():
    assert widest(SPACE)["min_samples"] == IntDistribution(5, 100)
    assert widest(SPACE)["eps"] is SPACE["eps"]


def test_the_written_space_changes_with_any_bound():
    other = {**SPACE, "eps": FloatDistribution(1.0, 10.0)}
    assert describe(SPACE) == describe(dict(SPACE))
    assert describe(SPACE)["eps"] != describe(other)["eps"]


@pytest.mark.parametrize(
    ("chosen", "there"),
    [
        ({"detector": "cvae"}, ["detector", "n_epochs", "smoothing"]),
        ({"detector": "ensemble"}, ["detector", "n_epochs", "smoothing"]),
        ({"detector": "patches", "kind": "nearest"}, ["detector", "kind", "smoothing"]),
        (
            {"detector": "patches", "kind": "bank"},
            ["detector", "kind", "n_neighbors", "smoothing"],
        ),
    ],
)
def test_a_conditional_parameter_is_there_where_its_condition_holds(chosen, there):
    others = {"n_epochs": 4, "n_neighbors": 2, "smoothing": 1.0}
    trial = optuna.trial.FixedTrial({**chosen, **others})
    params = suggest(trial, CONDITIONAL)
    assert list(params) == there
    assert list(trial.distributions) == there


def test_a_parameter_whose_condition_is_left_out_is_left_out_too():
    trial = optuna.trial.FixedTrial({"detector": "cvae", "kind": "bank", "n_epochs": 4})
    space = {name: CONDITIONAL[name] for name in ("detector", "kind", "n_epochs", "n_neighbors")}
    assert suggest(trial, space) == {"detector": "cvae", "n_epochs": 4}


def test_a_capped_integer_can_be_conditional():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [suggest(study.ask(), CONDITIONAL) for _ in range(60)]
    assert {point.get("n_neighbors") for point in points} == {None, 1, 2, 3}
    assert capped(CONDITIONAL) == {"n_neighbors"} and capped(SPACE) == {"min_samples"}


def test_a_space_with_a_condition_is_conditional():
    assert is_conditional(CONDITIONAL)
    assert not is_conditional(SPACE)


def test_the_box_of_a_conditional_space_has_every_parameter():
    assert widest(CONDITIONAL) == {
        "detector": CategoricalDistribution(["cvae", "patches", "ensemble"]),
        "kind": CategoricalDistribution(["nearest", "bank"]),
        "n_epochs": IntDistribution(1, 40),
        "n_neighbors": IntDistribution(1, 9),
        "smoothing": FloatDistribution(0.0, 4.0),
    }


def test_the_written_space_has_the_conditions():
    written = describe(CONDITIONAL)
    assert written["n_epochs"]["when"] == {"detector": ["cvae", "ensemble"]}
    assert written["n_neighbors"]["when"] == {"kind": ["bank"]}
    assert {k: v for k, v in written["n_neighbors"].items() if k != "when"} == describe(
        {"n": IntDistribution(1, 9)}
    )["n"]
    assert "when" not in written["detector"] and "when" not in written["smoothing"]
    narrower = {**CONDITIONAL, "n_epochs": When(IntDistribution(1, 40), "detector", ("cvae",))}
    assert describe(narrower) != written


def test_a_flat_space_is_written_as_it_was_before_there_were_conditions():
    assert json.dumps(describe(SPACE)) == (
        '{"eps": {"name": "FloatDistribution", "attributes": '
        '{"step": null, "low": 1.0, "high": 10.0, "log": true}}, '
        '"min_samples": {"name": "IntDistribution", "attributes": '
        '{"log": false, "step": 1, "low": 5, "high": 100}}, '
        '"loss": {"name": "CategoricalDistribution", "attributes": {"choices": ["mse", "l1"]}}}'
    )


def test_a_condition_on_a_parameter_that_does_not_come_before_is_refused():
    space = {"kind": CONDITIONAL["kind"], "detector": CONDITIONAL["detector"]}
    with pytest.raises(ValueError, match=r"kind waits for 'detector', .* before it stand \[\]"):
        suggest(optuna.create_study().ask(), space)


@pytest.mark.parametrize("values", [("patchs",), ("patches", "cave"), "cvae"])
def test_a_condition_that_could_never_hold_is_refused(values):
    space = {
        "detector": CONDITIONAL["detector"],
        "kind": When(FloatDistribution(0, 1), "detector", values),
    }
    with pytest.raises(ValueError, match=r"kind waits for detector to be one of \['\w+'"):
        suggest(optuna.create_study().ask(), space)


def test_what_cannot_be_suggested_is_refused():
    with pytest.raises(TypeError, match="eps has a distribution that cannot be suggested"):
        suggest(optuna.create_study().ask(), {"eps": "0..1"})
