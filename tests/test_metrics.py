"""The objective cannot be gamed, the numbers are scikit-learn's, the intervals respect copies."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_sample_weight

from models.heads.giaem import balanced_f_beta
from training.metrics import (
    bootstrap_intervals,
    evaluate,
    recall_threshold,
    two_class_f1_threshold,
    wilson_lower,
)


@pytest.fixture
def answers():
    """60 images in 20 groups, scores with ties, and a threshold that errs both ways."""
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(20), 3)
    labels = (groups >= 8).astype(np.int64)
    scores = np.round(rng.normal(labels * 0.8, 1), 1)
    return labels, (scores >= 0.2).astype(np.int64), scores, groups


def scikit_learn(labels, predicted, scores, weights=None):
    """The same names by scikit-learn, each image counted `weights` times."""
    counted = {"sample_weight": weights}
    balance = compute_sample_weight("balanced", np.repeat(labels, weights))
    repeated = np.repeat(labels, weights), np.repeat(predicted, weights)
    both = {"average": "macro", "zero_division": 0, **counted}
    false_alarms, recall, _ = sk.roc_curve(labels, scores, drop_intermediate=False, **counted)
    return {
        "f2": sk.fbeta_score(*repeated, beta=2, sample_weight=balance),
        "recall": sk.recall_score(labels, predicted, **counted),
        "specificity": sk.recall_score(labels, predicted, pos_label=0, **counted),
        "precision": sk.precision_score(labels, predicted, zero_division=0, **counted),
        "f1": sk.f1_score(labels, predicted, **counted),
        "accuracy": sk.accuracy_score(labels, predicted, **counted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, **counted),
        "mcc": sk.matthews_corrcoef(labels, predicted, **counted),
        "auroc": sk.roc_auc_score(labels, scores, **counted),
        "auprc": sk.average_precision_score(labels, scores, **counted),
        "specificity_at_95_recall": 1 - false_alarms[recall >= 0.95].min(),
        "macro_precision": sk.precision_score(labels, predicted, **both),
        "macro_recall": sk.recall_score(labels, predicted, **both),
        "macro_f1": sk.f1_score(labels, predicted, **both),
    }


def test_two_hits_one_false_alarm_and_one_miss_by_hand():
    metrics = evaluate([1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [4.0, 3.0, 1.0, 2.0, 0.0])
    assert [metrics[name] for name in ("tp", "fp", "tn", "fn")] == [2, 1, 1, 1]
    assert metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["specificity"] == 0.5
    assert metrics["precision"] == pytest.approx(2 / 3)
    assert metrics["auroc"] == pytest.approx(5 / 6)  # 5 of 6 pairs in order
    assert metrics["f2"] == pytest.approx(5 * (2 / 3) / (4 + 1 + 2 / 3 - 1 / 2))  # 20 / 31


def test_every_metric_equals_scikit_learns(answers):
    labels, predicted, scores, _ = answers
    metrics = evaluate(labels, predicted, scores)
    expected = scikit_learn(labels, predicted, scores, np.ones(60, dtype=int))
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_everyone_has_a_tumour_has_the_papers_two_class_means():
    labels = np.repeat([1, 0], [80, 20])
    metrics = evaluate(labels, np.ones(100), np.zeros(100))
    names = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
    assert [round(100 * metrics[name], 1) for name in names] == [80, 40, 50, 44.4]
    assert metrics["auroc"] == 0.5


def test_balancing_takes_the_reward_out_of_flagging_everyone():
    labels = np.repeat([1, 0], [80, 20])
    assert sk.fbeta_score(labels, np.ones(100), beta=2) == pytest.approx(0.952, abs=5e-4)
    assert evaluate(labels, np.ones(100), np.zeros(100))["f2"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_f_beta_of_two_rates_is_fbeta_score_over_balanced_weights(answers, beta):
    labels, _, scores, _ = answers
    thresholds = np.unique(scores)
    predicted = scores >= thresholds[:, None]  # (T, n)
    recall = predicted[:, labels == 1].mean(axis=1)
    specificity = 1 - predicted[:, labels == 0].mean(axis=1)
    balance = compute_sample_weight("balanced", labels)
    expected = [sk.fbeta_score(labels, row, beta=beta, sample_weight=balance) for row in predicted]
    np.testing.assert_allclose(
        balanced_f_beta(recall, specificity, beta=beta), expected, atol=1e-12
    )


def test_nobody_flagged_has_zeros_where_there_is_nothing_to_divide_by():
    metrics = evaluate([1, 1, 0], [0, 0, 0], [0.1, 0.2, 0.3])
    assert all(metrics[name] == 0 for name in ("f2", "recall", "precision", "f1", "mcc", "auroc"))
    assert metrics["specificity"] == 1


@pytest.mark.parametrize("only", [0, 1])
def test_a_missing_class_is_refused(only):
    with pytest.raises(ValueError, match=rf"both classes, got \[{only}\]"):
        evaluate([only, only], [0, 1], [0.0, 1.0])


def test_a_score_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="got 1 NaN"):
        evaluate([0, 1], [0, 1], [0.0, np.nan])


def test_intervals_are_the_quantiles_of_scikit_learn_over_the_drawn_groups(answers):
    labels, predicted, scores, groups = answers
    rng = np.random.default_rng(5)
    healthy = rng.multinomial(8, np.full(8, 1 / 8), size=40)
    tumour = rng.multinomial(12, np.full(12, 1 / 12), size=40)
    draws = np.hstack([healthy, tumour])[:, groups]  # (resamples, images)
    resamples = [scikit_learn(labels, predicted, scores, row) for row in draws]
    intervals = bootstrap_intervals(labels, predicted, scores, groups, n=40, seed=5)
    for name, interval in intervals.items():
        expected = np.quantile([resample[name] for resample in resamples], [0.025, 0.975])
        assert interval == pytest.approx(expected, abs=1e-12), name


def test_copies_of_an_image_do_not_narrow_the_interval(answers):
    labels, predicted, scores, groups = answers
    once = bootstrap_intervals(labels, predicted, scores, groups)
    twice = bootstrap_intervals(*(np.repeat(array, 2) for array in answers))
    np.testing.assert_allclose(list(twice.values()), list(once.values()))
    assert set(once) == set(evaluate(labels, predicted, scores)) - {"tp", "fp", "tn", "fn"}


def test_a_group_with_both_labels_is_resampled_in_each_class():
    labels, groups = [1, 1, 0, 0], [0, 1, 1, 2]
    intervals = bootstrap_intervals(labels, labels, [1.0, 2.0, 0.0, -1.0], groups, n=50)
    assert intervals["f2"] == (1, 1)


def test_the_specificity_at_95_recall_is_that_of_the_19th_of_20_tumours():
    tumours, healthy = np.arange(20.0, 0, -1), [30.0, 2.5, 1.5, 0.5]
    scores = np.append(tumours, healthy)
    metrics = evaluate(np.repeat([1, 0], [20, 4]), np.ones(24), scores)
    assert metrics["specificity_at_95_recall"] == 0.5  # at 2: 30 and 2.5 are false alarms


def test_healthy_images_tied_with_the_tumour_that_reaches_95_recall_are_false_alarms():
    metrics = evaluate([1, 1, 0, 0, 0], np.ones(5), [0.9, 0.5, 0.5, 0.5, 0.1])
    assert metrics["specificity_at_95_recall"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 5), (1, 1), (3, 4), (80, 100), (450, 450)])
def test_wilsons_lower_bound_is_scipys(successes, n, confidence):
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert wilson_lower(successes, n, confidence=confidence) == pytest.approx(
        interval.low, abs=1e-12
    )


def test_wilsons_bound_of_everything_found_is_n_over_n_and_z_squared():
    assert wilson_lower(4, 4) == pytest.approx(4 / (4 + 1.959964**2))  # 0.510


def test_wilsons_bound_of_nothing_found_is_not_negative_by_rounding():
    assert all(wilson_lower(0, n) >= 0 for n in range(1, 300))


@pytest.mark.parametrize(("successes", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_a_proportion_that_is_none_is_refused(successes, n):
    with pytest.raises(ValueError, match=rf"got {successes} of {n}"):
        wilson_lower(successes, n)


def test_the_recall_threshold_asks_more_than_the_recall_itself():
    labels, scores = [1, 1, 1, 1, 0], [0.9, 0.7, 0.6, 0.2, 0.8]
    # of 4 tumours, 2, 3 and 4 found show recalls of 0.150, 0.301 and 0.510
    assert recall_threshold(labels, scores, floor=0.15) == 0.7
    assert recall_threshold(labels, scores, floor=0.3) == 0.6
    assert recall_threshold(labels, scores, floor=0.5) == 0.2


def test_a_bound_on_the_floor_reaches_it():
    labels, scores = [1, 1, 1, 1, 0], [0.9, 0.7, 0.6, 0.2, 0.8]
    assert recall_threshold(labels, scores, floor=wilson_lower(3, 4)) == 0.6


def test_tied_tumours_are_found_together():
    labels, scores = [1, 1, 1, 1, 0], [0.9, 0.6, 0.6, 0.2, 0.8]
    assert recall_threshold(labels, scores, floor=0.15) == 0.6
    assert recall_threshold(labels, scores, floor=0.3) == 0.6


def test_the_recall_threshold_is_the_highest_that_scipys_interval_allows(answers):
    labels, _, scores, _ = answers
    threshold = recall_threshold(labels, scores, floor=0.8)

    def low(at):
        found = int((scores[labels == 1] >= at).sum())
        return binomtest(found, int(labels.sum())).proportion_ci(method="wilson").low

    assert low(threshold) >= 0.8
    assert all(low(higher) < 0.8 for higher in scores[scores > threshold])


def test_73_tumours_and_no_fewer_can_show_a_recall_of_95_percent():
    scores = np.arange(74.0)
    labels = scores > 0
    assert recall_threshold(labels, scores, floor=0.95) == 1.0
    with pytest.raises(ValueError, match=r"^72 tumours .* bound is 0.949.* at least 73 tumours\."):
        recall_threshold(labels[:-1], scores[:-1], floor=0.95)


def test_too_few_tumour_groups_are_named_as_groups():
    with pytest.raises(ValueError, match=r"^1 tumour groups cannot .* at least 4 tumour groups"):
        recall_threshold([1, 1, 1, 0], [3, 2, 1, 0], floor=0.5, groups=[0, 0, 0, 1])


def test_ten_copies_of_one_tumour_are_one_observation():
    labels = [*[1] * 13, 0]
    scores = [*[0.9] * 10, 0.8, 0.7, 0.6, 0.75]
    groups = [*[0] * 10, 1, 2, 3, 1]
    assert recall_threshold(labels, scores, floor=0.5) == 0.8  # 11 of 13 show 0.578
    assert recall_threshold(labels, scores, floor=0.5, groups=groups) == 0.6  # 4 of 4: 0.510


def test_a_group_half_found_counts_half():
    labels, groups = [1, 1, 1, 1, 1, 0], [0, 0, 1, 2, 3, 4]
    scores = [0.9, 0.1, 0.8, 0.7, 0.6, 0.5]
    assert wilson_lower(2.5, 4) == pytest.approx(0.2194, abs=5e-5)
    # 0.5, 1.5, 2.5 and 3.5 of 4 groups
    assert recall_threshold(labels, scores, floor=0.21, groups=groups) == 0.7
    assert recall_threshold(labels, scores, floor=0.23, groups=groups) == 0.6


def test_groups_of_three_found_whole_are_whole():
    labels, groups = [*[1] * 219, 0], [*np.repeat(np.arange(73), 3), 99]
    scores = np.arange(220.0)[::-1]
    assert recall_threshold(labels, scores, floor=0.95, groups=groups) == 1.0


def test_copies_within_their_groups_leave_the_recall_threshold(answers):
    labels, _, scores, groups = answers
    once = recall_threshold(labels, scores, floor=0.6, groups=groups)
    twice = [np.repeat(array, 2) for array in (labels, scores, groups)]
    assert recall_threshold(*twice[:2], floor=0.6, groups=twice[2]) == once


@pytest.mark.parametrize("floor", [-0.1, 1.0, np.nan])
def test_a_floor_that_is_no_proportion_below_one_is_refused(floor):
    with pytest.raises(ValueError, match=r"floor must be in \[0, 1\), got"):
        recall_threshold([0, 1], [0.0, 1.0], floor=floor)


def test_the_two_class_f1_threshold_lies_between_the_scores_that_it_parts():
    labels, scores = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    # flagged from 0.5: tp 2, fn 1, tn 3, fp 0 -> 0.8 and 6/7; from 0.3: 6/7 and 0.8: a tie
    assert two_class_f1_threshold(labels, scores) == pytest.approx(0.45)


@pytest.mark.parametrize("seed", range(5))
def test_no_other_threshold_has_a_better_two_class_f1(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 40)
    scores = np.round(rng.normal(labels, 1.0), 1)  # with ties
    found = evaluate(labels, scores >= two_class_f1_threshold(labels, scores), scores)
    values = [sk.f1_score(labels, scores >= level, average="macro") for level in scores]
    assert found["macro_f1"] == pytest.approx(max(values))
