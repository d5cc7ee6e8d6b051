"""The objective cannot be gamed, the numbers are scikit-learn's, the intervals respect copies."""

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_sample_weight

from models.heads.giaem import balanced_f_beta
from training.metrics import bootstrap_intervals, evaluate


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
