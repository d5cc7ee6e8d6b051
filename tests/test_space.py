import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from studies.space import Capped, describe, suggest, widest

SPACE = {
    "eps": FloatDistribution(1.0, 10.0, log=True),
    "min_samples": Capped(IntDistribution(5, 100), high=lambda chosen: int(10 * chosen["eps"])),
    "loss": CategoricalDistribution(["mse", "l1"]),
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


def test_what_cannot_be_suggested_is_refused():
    with pytest.raises(TypeError, match="eps has a distribution that cannot be suggested"):
        suggest(optuna.create_study().ask(), {"eps": "0..1"})
