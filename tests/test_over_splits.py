"""A mean over splits counts a group once, however many of its test sets hold it."""

import numpy as np
import pytest

from training.floors import evaluate_scored
from training.over_splits import draw_groups, repeat

GROUPS = np.repeat(np.arange(20), 3)
LABELS = (GROUPS >= 10).astype(np.int64)


def answers_of(images, *, right):
    """Answers on some of the images, right where `right` says so."""
    labels = LABELS[images]
    predicted = np.where(right[images], labels, 1 - labels)
    return evaluate_scored("method", labels, GROUPS[images], predicted - 0.5, predicted)


def all_right_but(*wrong):
    return ~np.isin(GROUPS, wrong)


def test_every_resample_draws_as_many_groups_of_each_class_as_there_are():
    draws = draw_groups(GROUPS, LABELS, n=50)
    assert draws.counts.shape == (50, 20)
    assert (draws.counts[:, :10].sum(axis=1) == 10).all()
    assert (draws.counts[:, 10:].sum(axis=1) == 10).all()


def test_images_of_a_group_are_drawn_together():
    drawn = draw_groups(GROUPS, LABELS, n=50).of(GROUPS)
    assert (drawn[:, 0::3] == drawn[:, 1::3]).all() and (drawn[:, 0::3] == drawn[:, 2::3]).all()


def test_groups_with_gaps_in_their_numbers_find_their_draws():
    draws = draw_groups(np.array([9, 9, 4, 2]), np.array([0, 0, 0, 0]), n=20)
    assert draws.names.tolist() == [2, 4, 9]
    assert (draws.of(np.array([9, 2])) == draws.counts[:, [2, 0]]).all()


def test_the_mean_and_the_spread_are_those_of_the_splits():
    images = np.arange(60)
    parts = [
        answers_of(images, right=all_right_but(0)),  # specificity 0.9
        answers_of(images, right=all_right_but(0, 1, 2)),  # 0.7
    ]
    repeated = repeat("method", parts, draw_groups(GROUPS, LABELS))
    assert repeated.mean("specificity") == pytest.approx(0.8)
    assert repeated.spread("specificity") == pytest.approx(0.2 / np.sqrt(2))
    assert repeated.values("recall").tolist() == [1, 1]


def test_one_split_has_no_spread():
    parts = [answers_of(np.arange(60), right=all_right_but(0))]
    assert np.isnan(repeat("method", parts, draw_groups(GROUPS, LABELS)).spread("recall"))


def test_the_same_test_set_twice_is_no_more_certain_than_once():
    part = answers_of(np.arange(60), right=all_right_but(0, 1, 12))
    draws = draw_groups(GROUPS, LABELS)
    once, twice = repeat("method", [part], draws), repeat("method", [part, part], draws)
    assert twice.interval("specificity") == once.interval("specificity")


def test_other_groups_in_the_second_split_make_the_mean_more_certain():
    first = answers_of(np.flatnonzero(GROUPS % 2 == 0), right=all_right_but(0, 2, 12))
    second = answers_of(np.flatnonzero(GROUPS % 2 == 1), right=all_right_but(1, 3, 13))
    draws = draw_groups(GROUPS, LABELS)
    widths = [
        np.diff(repeat("method", parts, draws).interval("specificity"))[0]
        for parts in ([first], [first, second])
    ]
    assert widths[1] < 0.85 * widths[0]


def test_the_interval_is_the_bootstraps():
    wrong_share = draw_groups(GROUPS, LABELS).counts[:, :3].sum(axis=1) / 10
    part = answers_of(np.arange(60), right=all_right_but(0, 1, 2))
    low, high = repeat("method", [part], draw_groups(GROUPS, LABELS)).interval("specificity")
    assert (low, high) == pytest.approx(tuple(np.quantile(1 - wrong_share, (0.025, 0.975))))


def test_two_methods_that_answer_alike_have_no_lead_on_each_other():
    draws = draw_groups(GROUPS, LABELS)
    one = repeat("one", [answers_of(np.arange(60), right=all_right_but(0, 12))], draws)
    other = repeat("other", [answers_of(np.arange(60), right=all_right_but(0, 12))], draws)
    assert one.lead(other, "auroc") == (0, 0)


def test_a_method_that_is_right_wherever_another_is_leads_it():
    draws = draw_groups(GROUPS, LABELS)
    better = repeat("better", [answers_of(np.arange(60), right=all_right_but(0))], draws)
    worse = repeat("worse", [answers_of(np.arange(60), right=all_right_but(0, 1, 2, 3))], draws)
    low, high = better.lead(worse, "specificity")
    assert 0 <= low < 0.3 < high
    assert worse.lead(better, "specificity") == pytest.approx((-high, -low))


def test_a_split_that_loses_a_class_in_a_resample_is_left_out_of_its_mean():
    whole = answers_of(np.arange(60), right=all_right_but())
    few = answers_of(np.flatnonzero((GROUPS == 0) | (GROUPS >= 10)), right=all_right_but(0))
    draws = draw_groups(GROUPS, LABELS)
    lost = draws.counts[:, 0] == 0
    means = repeat("method", [whole, few], draws).resamples["specificity"]
    assert lost.any()
    assert (means[lost] == 1).all()  # the first split's alone
    assert (means[~lost] == 0.5).all()
