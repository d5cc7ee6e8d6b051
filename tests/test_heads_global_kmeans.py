"""Global KMeans: the labels of scikit-learn's KMeans, the strict margin, maps all alike."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from models.heads import GlobalKMeans
from models.heads.binary_rows import BitRows
from models.heads.global_kmeans import two_means
from models.heads.on_device.rows import DeviceRows

# distances to the centroids (1 1 1 0) and (0 0 0 0) of the two kinds differ by sqrt(3), but for
# the last map, which is in neither
KINDS = np.array([[1, 1, 1, 0]] * 3 + [[0, 0, 0, 0]] * 3)[:, None, :]


def blobs(n=120, side=12):
    """Maps of 0 and 1 around two patterns, some of them far from both."""
    random = np.random.default_rng(0)
    patterns = random.random((2, side, side))
    share = random.random(n)[:, None, None]
    return (share * patterns[0] + (1 - share) * patterns[1] > random.random((n, side, side))) * 1.0


def rows_of(maps, threshold=0.5):
    return (maps >= threshold).reshape(len(maps), -1).astype(np.uint8)


ROWS = {"bits": BitRows, "torch": lambda masks: DeviceRows(torch.tensor(masks))}


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("seed", range(12))
def test_labels_and_centroids_are_those_of_scikit_learn(seed, rows):
    masks = blobs() >= 0.5
    expected = KMeans(2, n_init=1, random_state=seed).fit(masks.reshape(len(masks), -1))
    found = two_means(ROWS[rows](masks), seed=seed)
    np.testing.assert_array_equal(found.labels, expected.labels_)
    np.testing.assert_allclose(
        found.counts / found.sizes[:, None], expected.cluster_centers_, atol=1e-12
    )


def symmetric(n, n_marked, marks, seed):
    """Maps of which all that are marked differ in kind alone: most distances are equal."""
    pixels = np.zeros((n, 1024), dtype=bool)
    for mark in range(marks):
        pixels[np.arange(n_marked), (marks * np.arange(n_marked) + mark) % 1024] = True
    return np.random.default_rng(seed).permutation(pixels).reshape(n, 32, 32)


@pytest.mark.parametrize(
    ("n", "n_marked", "marks", "seed"),
    [
        (600, 300, 1, 5),  # all but two rows as near to one seed as to the other
        (600, 300, 1, 13),  # two second seeds that are equally good
        (23, 21, 1, 1),  # a row is rounded by its place among those that are multiplied
        (31, 29, 1, 3),
        *((5 + 37 * seed, 3 + 20 * seed, 1 + seed % 3, seed) for seed in range(16)),
    ],
)
@pytest.mark.parametrize("rows", ROWS)
def test_ties_are_broken_as_scikit_learns_rounding_breaks_them(n, n_marked, marks, seed, rows):
    masks = symmetric(n, n_marked, marks, seed)
    found = two_means(ROWS[rows](masks), seed=seed)
    expected = KMeans(2, n_init=1, random_state=seed).fit(masks.reshape(n, -1).astype(float))
    np.testing.assert_array_equal(found.labels, expected.labels_)


def test_the_decision_is_the_papers_rule_on_scikit_learns_distances(keep):
    maps = blobs()
    rows = rows_of(maps)
    fitted = KMeans(2, n_init=1, random_state=4).fit(rows[:80])
    gaps = np.abs(np.subtract(*fitted.transform(rows.astype(float)).T))
    head = GlobalKMeans(0.5, alpha=0.3, seed=4).fit(keep(maps[:80]))
    maps = keep(maps)
    assert head.scale_ == pytest.approx(gaps[:80].max())
    np.testing.assert_array_equal(head.predict(maps), gaps < 0.3 * gaps[:80].max())
    np.testing.assert_allclose(head.decision_function(maps), 0.3 * head.scale_ - gaps, atol=1e-9)


def test_two_kinds_of_map_are_healthy_and_one_between_is_a_tumor():
    head = GlobalKMeans(0.5, alpha=0.5).fit(KINDS)
    assert head.scale_ == pytest.approx(np.sqrt(3))
    assert sorted(head.centroids_.sum(axis=(1, 2))) == [0, 3]
    assert head.predict(KINDS).tolist() == [0] * 6
    # sqrt(2) from one, 1 from the other: a gap of 0.414 below half of 1.732
    assert head.predict(np.array([[[1, 0, 0, 0]]])) == [1]


def test_the_scale_is_that_of_fit():
    head = GlobalKMeans(0.5, alpha=0.5).fit(KINDS)
    between = np.array([[[1, 0, 0, 0]], [[1, 1, 0, 1]]])
    np.testing.assert_array_equal(
        head.decision_function(between)[:1], head.decision_function(between[:1])
    )


def test_global_kmeans_with_alpha_zero_flags_nothing():
    between = np.array([[[0, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 1]]])
    head = GlobalKMeans(0.5, alpha=0).fit(KINDS)
    assert head.predict(np.concatenate([KINDS, between])).sum() == 0


def test_a_gap_of_exactly_alpha_times_the_largest_is_no_tumor():
    head = GlobalKMeans(0.5, alpha=1).fit(KINDS)
    assert head.predict(KINDS).sum() == 0
    assert (head.decision_function(KINDS) < 0).all()


def test_an_error_at_the_threshold_is_one():
    head = GlobalKMeans(0.7).fit(KINDS)
    assert head.mask(np.array([[[0.7, 0.69, 1, 0]]], dtype=np.float32)).tolist() == [
        [[True, False, True, False]]
    ]


@pytest.mark.parametrize("error", [0, 1])
def test_maps_that_are_all_alike_are_never_flagged(error, keep):
    alike = np.full((5, 4, 4), float(error))
    head = GlobalKMeans(0.5, alpha=1).fit(keep(alike))
    assert head.scale_ == 0
    assert head.predict(np.concatenate([alike, 1 - alike])).sum() == 0


def test_one_map_alone_has_no_two_kinds():
    with pytest.raises(ValueError, match="at least 2 error maps, got 1"):
        GlobalKMeans().fit(KINDS[:1])


def test_decisions_do_not_depend_on_the_order_of_the_maps():
    maps = blobs()
    head = GlobalKMeans().fit(maps)
    np.testing.assert_array_equal(
        head.decision_function(maps[::-1]), head.decision_function(maps)[::-1]
    )
