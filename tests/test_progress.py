import pytest
from rich.console import Console

from studies.progress import Display, TrialLine, format_params, format_seconds


def line(number, value, *, is_best=False, is_feasible=True):
    return TrialLine(number, "complete", {"alpha": 0.12345, "n": 3}, value, is_feasible, is_best)


@pytest.fixture
def display():
    return Display("f2", 10, Console(width=200, record=True))


def test_a_line_says_trial_value_best_and_parameters(display):
    display.on_trial(line(0, 0.5, is_best=True))
    display.on_trial(line(1, 0.25))
    said = display.console.export_text()
    assert "trial 1  [2/10]  f2 0.2500  best 0.5000 (trial 0)  alpha=0.1235 n=3" in said


def test_an_infeasible_trial_is_said_to_be(display):
    display.on_trial(line(0, 0.9, is_feasible=False))
    assert "f2 0.9000 infeasible  no best" in display.console.export_text()


def test_one_slow_trial_does_not_set_the_time_left(display):
    display.ended = [0.0, 100.0, 101.0, 102.0]
    display.done = 3
    assert display.left() == 7.0


def test_numbers_are_short():
    assert format_params({"lr": 0.000123456, "loss": "mse"}) == "lr=0.0001235 loss=mse"
    assert [format_seconds(seconds) for seconds in (7.4, 83, 3723)] == ["0:07", "1:23", "1:02:03"]
