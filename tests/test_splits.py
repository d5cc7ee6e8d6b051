"""Splits: whole groups, the paper's proportions, every image once, and what leaks."""

import numpy as np
import pytest

from training.data import DataError, leaked_share, leaks_by_class, split
from training.data.splits import SHARES, Splits, manifest_with_splits


def skewed_set(seed, n_groups=80):
    """Labels and groups of two classes whose groups are mostly small and rarely large."""
    rng = np.random.default_rng(seed)
    sizes = 1 + rng.geometric(0.2, 2 * n_groups)
    sizes[0] = 77
    groups = np.repeat(np.arange(2 * n_groups), sizes)
    labels = (groups >= n_groups).astype(np.int64)
    order = rng.permutation(len(groups))
    return labels[order], groups[order]


def shares_of(splits, labels, label):
    return [np.count_nonzero(labels[part] == label) for part in splits]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scheme", SHARES)
def test_no_group_is_in_two_parts_of_a_grouped_split(seed, scheme):
    labels, groups = skewed_set(seed)
    splits = split(labels, groups, scheme=scheme, seed=seed)
    parts = [set(groups[part]) for part in splits]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("scheme", SHARES)
def test_grouped_parts_keep_the_proportions_within_a_few_images(seed, scheme):
    labels, groups = skewed_set(seed)
    splits = split(labels, groups, scheme=scheme, seed=seed)
    for label, shares in SHARES[scheme].items():
        wanted = np.array(shares) * np.count_nonzero(labels == label)
        assert np.abs(shares_of(splits, labels, label) - wanted).max() <= 3


@pytest.mark.parametrize("protocol", ["grouped", "paper"])
@pytest.mark.parametrize("scheme", SHARES)
def test_every_image_is_used_once_and_parts_are_sorted(protocol, scheme):
    labels, groups = skewed_set(0)
    splits = split(labels, groups, protocol=protocol, scheme=scheme)
    assert sorted(np.concatenate(splits).tolist()) == list(range(len(labels)))
    assert all((np.diff(part) > 0).all() and part.dtype == np.int64 for part in splits)


@pytest.mark.parametrize("protocol", ["grouped", "paper"])
def test_the_detector_trains_on_healthy_images_only(protocol):
    labels, groups = skewed_set(0)
    assert not labels[split(labels, groups, protocol=protocol).train].any()


def test_a_split_is_the_same_for_a_seed_and_another_for_another():
    labels, groups = skewed_set(0)
    first, again, other = (split(labels, groups, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first.test, other.test)


def test_a_middling_group_reaches_the_test_set_under_some_seeds_only():
    labels = np.repeat([0, 1], 500)
    groups = np.concatenate([np.zeros(10, int), 1 + np.arange(990)])
    reached = {0 in groups[split(labels, groups, seed=seed).test] for seed in range(60)}
    assert reached == {True, False}


@pytest.mark.parametrize("seed", range(20))
def test_no_group_makes_up_a_small_part(seed):
    labels, groups = skewed_set(seed)  # a group of 77 healthy images in about 550
    assert 0 in groups[split(labels, groups, seed=seed).train]


def test_the_paper_s_split_has_the_paper_s_numbers():
    labels = np.repeat([0, 1], 1500)
    splits = split(labels, np.arange(3000) // 10, protocol="paper")
    assert shares_of(splits, labels, 0) == [1125, 150, 225]
    assert shares_of(splits, labels, 1) == [0, 600, 900]


def test_leaks_are_counted_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    groups = np.array([0, 0, 1, 2, 3, 3, 4, 4])
    splits = Splits(np.array([0]), np.array([2, 4]), np.array([1, 3, 5, 6, 7]))
    assert leaked_share(splits, groups) == pytest.approx(2 / 5)  # 1 beside 0, 5 beside 4
    assert leaks_by_class(splits, labels, groups) == {0: 1 / 2, 1: pytest.approx(1 / 3)}


def test_a_grouped_split_leaks_nothing_and_a_random_one_does():
    labels, groups = skewed_set(0)
    assert leaked_share(split(labels, groups), groups) == 0
    assert leaked_share(split(labels, groups, protocol="paper"), groups) > 0.5


def test_an_empty_class_is_refused():
    with pytest.raises(DataError, match=r"tumour \(yes/\) holds no usable image"):
        split(np.zeros(40, dtype=int), np.arange(40))


def test_fewer_than_ten_groups_in_a_class_are_refused():
    labels = np.repeat([0, 1], 40)
    groups = np.concatenate([np.arange(40), 100 + np.arange(40) % 9])
    with pytest.raises(DataError, match=r"at least 10 groups .* got 9"):
        split(labels, groups)
    groups[40] = 109
    split(labels, groups)


@pytest.mark.parametrize("wrong", [{"protocol": "random"}, {"scheme": "gan"}])
def test_unknown_protocols_and_schemes_are_refused_with_the_known_ones(wrong):
    with pytest.raises(DataError, match=r"must be one of .*, got"):
        split(*skewed_set(0), **wrong)


def test_the_manifest_tells_each_image_s_part(phantom):
    splits = split(phantom.labels, phantom.groups)
    parts = manifest_with_splits(phantom, splits)["split"]
    assert (parts.iloc[splits.val] == "val").all()
    assert parts.value_counts().to_dict() == {
        name: len(indices) for name, indices in splits._asdict().items()
    }
