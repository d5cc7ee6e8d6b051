"""The DBSCAN head: the labels of scikit-learn's DBSCAN, and what the lattice makes impossible."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from models.heads import DBSCANHead, KeptMaps
from models.heads.dbscan import clusters, max_neighbors, min_feasible_eps
from models.heads.lattice import BLOCK
from models.heads.points import points


def smooth(seed, shape=(40, 40)):
    """Noise with a neighbourhood: a running mean of random errors, scaled to [0, 1]."""
    errors = np.random.default_rng(seed).random(shape)
    for axis in (0, 1):
        errors = errors + np.roll(errors, 1, axis) + np.roll(errors, 2, axis)
    return ((errors - errors.min()) / np.ptp(errors)).astype(np.float32)


def random_map(kind, random, shape):
    """One map of a kind that DBSCAN finds hard, in its own way."""
    pitch = 1 / (2 * (shape[1] - 1))  # of the columns: errors in whole pitches tie with places
    smoothed = smooth(random.integers(2**32), shape)
    return {
        "rough": lambda: random.random(shape) ** 3,
        "smooth": lambda: smoothed,
        "half empty": lambda: np.where(smoothed > 0.5, smoothed, 0),
        "few errors": lambda: np.round(smoothed * 4) / 4,
        "errors in pitches": lambda: np.round(smoothed / pitch) * pitch / 2,
        "nearly ties": lambda: np.clip(
            np.round(smoothed / pitch) * pitch / 2 + 1e-7 * random.standard_normal(shape), 0, 1
        ),
        "constant": lambda: np.full(shape, random.random()),
    }[kind]()


KINDS = (
    "rough",
    "smooth",
    "half empty",
    "few errors",
    "errors in pitches",
    "nearly ties",
    "constant",
)


def assert_as_scikit_learn(error_map, eps, min_samples, keep):
    expected = DBSCAN(eps=eps, min_samples=min_samples).fit(points(error_map))
    (found,) = clusters(keep(error_map[np.newaxis]), eps=eps, min_samples=min_samples)
    np.testing.assert_array_equal(found.labels.ravel(), expected.labels_)
    np.testing.assert_array_equal(np.flatnonzero(found.core), expected.core_sample_indices_)
    return found


@pytest.mark.parametrize(("eps", "min_samples"), [(0.02, 3), (0.04, 6), (0.06, 12), (0.1, 30)])
def test_labels_and_core_pixels_are_those_of_scikit_learn(eps, min_samples, keep):
    for seed in range(3):
        found = assert_as_scikit_learn(smooth(seed), eps, min_samples, keep)
        assert found.core.any() and not found.core.all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_any_map_at_any_setting_is_clustered_as_by_scikit_learn(kind, dtype, keep):
    random = np.random.default_rng([KINDS.index(kind), np.dtype(dtype).itemsize])
    for _ in range(16):  # 224 pairs of a map and a setting in all
        shape = tuple(random.integers(8, 34, size=2))
        pitch = 1 / (2 * (shape[1] - 1))
        eps = pitch * random.choice([1, 2, 3, 5, random.uniform(0.9, 7)])
        most = max_neighbors(eps, shape)
        min_samples = int(random.integers(1, max(2, most)))
        error_map = random_map(kind, random, shape).astype(dtype)
        assert_as_scikit_learn(error_map, eps, min_samples, keep)


@pytest.mark.parametrize("kind", ["rough", "smooth", "half empty"])
@pytest.mark.parametrize("width", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_rows_of_whole_blocks_and_of_parts_are_clustered_as_by_scikit_learn(kind, width, keep):
    error_map = random_map(kind, np.random.default_rng(width), (11, width)).astype(np.float32)
    for reach, min_samples in ((1.5, 3), (4.2, 9), (9.5, 30)):  # pixels
        assert_as_scikit_learn(error_map, reach / (2 * (width - 1)), min_samples, keep)


@pytest.mark.slow
def test_an_image_with_more_pixels_than_short_labels_is_clustered_as_by_scikit_learn(keep):
    assert_as_scikit_learn(smooth(9, (260, 260)), 0.004, 5, keep)


@pytest.mark.slow
def test_the_mask_of_more_clusters_than_short_numbers_is_the_first_of_them(keep):
    maps = keep(smooth(9, (260, 260))[np.newaxis])
    mask = DBSCANHead(eps=1e-6, min_samples=1).fit(maps).mask(maps)  # each pixel a cluster
    assert np.flatnonzero(mask).tolist() == [0]


def test_many_maps_are_clustered_as_each_alone(keep):
    maps = keep(np.stack([smooth(seed) for seed in range(5)]))
    head = DBSCANHead(eps=0.06, min_samples=12).fit(maps)
    for found, error_map in zip(head.mask(maps), maps.values, strict=True):
        labels = DBSCAN(eps=0.06, min_samples=12).fit(points(error_map)).labels_
        largest = np.bincount(labels[labels >= 0]).argmax()
        np.testing.assert_array_equal(found.ravel(), labels == largest)


def test_a_border_pixel_goes_to_the_first_cluster_that_reaches_it(keep):
    row = np.array(
        [[0.0, 0, 0, 0.2, 0.4, 0.4, 0.4]]
    )  # the middle pixel is near to 2 and 4, the only core pixels
    found = assert_as_scikit_learn(row, 0.22, 4, keep)
    assert found.labels.tolist() == [[0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("eps", [2 / 254, 3 / 254, 5 / 254])
def test_ties_in_distance_are_decided_as_in_scikit_learn(eps, keep):
    errors = np.round(smooth(5, (128, 128)) * 254) / 254
    assert_as_scikit_learn(errors, eps, 8, keep)
    assert_as_scikit_learn(np.round(errors * 8) / 8, eps, 8, keep)


def test_maps_that_are_not_square_are_clustered_as_by_scikit_learn(keep):
    assert_as_scikit_learn(smooth(6, (20, 50)), 0.05, 6, keep)


def test_every_pixel_within_eps_makes_one_cluster(keep):
    found = assert_as_scikit_learn(smooth(7), 2.0, 1600, keep)
    assert (found.labels == 0).all()


def test_one_sample_makes_each_pixel_a_cluster_of_its_own():
    (found,) = clusters(KeptMaps(smooth(8)[np.newaxis]), eps=0.001, min_samples=1)
    assert len(np.unique(found.labels)) == 1600


def test_the_largest_cluster_decides_and_is_the_mask():
    maps = np.zeros((1, 10, 10))
    maps[0, :, 6:] = 1  # 60 pixels of error 0, 40 of error 1
    head = DBSCANHead(eps=0.06, min_samples=3, tumor_index=0.6).fit(maps)
    assert head.predict(maps) == [1]
    np.testing.assert_array_equal(head.mask(maps), maps == 0)
    assert head.set_params(tumor_index=0.61).fit(maps).predict(maps) == [0]


def test_of_equal_clusters_the_mask_shows_the_first(keep):
    maps = np.zeros((1, 10, 10))
    maps[0, :, 5:] = 1
    mask = DBSCANHead(eps=0.06, min_samples=3).fit(maps).mask(keep(maps))
    np.testing.assert_array_equal(mask, maps == 0)


def test_noise_is_in_no_cluster(keep):
    maps = keep(np.random.default_rng(0).random((1, 10, 10)))
    head = DBSCANHead(eps=0.06, min_samples=5, tumor_index=0.01).fit(maps)
    assert not head.mask(maps).any() and head.predict(maps) == [0]


def test_eps_below_the_pixel_pitch_sees_no_neighbour():
    assert max_neighbors(0.0039) == 1
    assert max_neighbors(0.004) == 5


def test_the_papers_setting_can_never_form_a_cluster():
    assert max_neighbors(0.005) == 5
    maps = np.zeros((2, 128, 128), dtype=np.float32)
    assert DBSCANHead(eps=0.005, min_samples=120).fit(maps).predict(maps).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("min_samples", "eps"), [(1, 0), (30, 0.0125), (60, 0.0167), (100, 0.0223), (120, 0.024)]
)
def test_the_smallest_feasible_eps_is_the_one_of_the_lattice(min_samples, eps):
    found = min_feasible_eps(min_samples)
    assert found == pytest.approx(eps, abs=1e-4)
    assert max_neighbors(found) >= min_samples
    if min_samples > 1:
        assert max_neighbors(found * (1 - 1e-9)) < min_samples


def test_no_pixel_has_more_neighbours_than_the_lattice_allows():
    flat = KeptMaps(np.zeros((1, 9, 12)))
    for eps in (0.05, 0.1, 0.2, 0.8):
        most = max_neighbors(eps, flat.shape)
        assert clusters(flat, eps=eps, min_samples=most)[0].core.any()
        assert not clusters(flat, eps=eps, min_samples=most + 1)[0].core.any()


def test_more_samples_than_pixels_are_refused():
    with pytest.raises(ValueError, match="min_samples must be at most 16384, got 16385"):
        min_feasible_eps(16385)
