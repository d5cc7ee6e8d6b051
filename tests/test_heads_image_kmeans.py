"""Per-image KMeans: the labels of scikit-learn's KMeans, and which half is called tumour."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from models.heads import ImageKMeans
from models.heads.image_kmeans import two_means
from models.heads.points import points


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("power", [1, 4])
def test_labels_are_those_of_scikit_learn(seed, power, keep):
    maps = (np.random.default_rng(seed).random((3, 30, 44)) ** power).astype(np.float32)
    for labels, error_map in zip(two_means(keep(maps), seed=seed), maps, strict=True):
        expected = KMeans(2, n_init=1, random_state=seed).fit(points(error_map)).labels_
        np.testing.assert_array_equal(labels.ravel(), expected)


@pytest.mark.parametrize("bright", [8, 92])
def test_the_brighter_cluster_is_the_mask_however_large_it_is(bright, keep):
    maps = np.zeros((1, 10, 10))
    maps.flat[:bright] = 1
    maps = keep(maps)
    head = ImageKMeans(tumor_index=bright / 100).fit(maps)
    np.testing.assert_array_equal(head.mask(maps), maps.values == 1)
    assert head.predict(maps) == [1]
    assert head.set_params(tumor_index=bright / 100 + 0.001).fit(maps).predict(maps) == [0]


@pytest.mark.parametrize("error", [0, 0.3, 1])
def test_a_constant_map_has_no_brighter_cluster(error, keep):
    maps = keep(np.full((1, 10, 10), error))
    head = ImageKMeans(tumor_index=0.01).fit(maps)
    assert not head.mask(maps).any() and head.predict(maps) == [0]
