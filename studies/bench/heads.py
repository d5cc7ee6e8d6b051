"""The heads beside scikit-learn: labels are held equal, then both are timed on one thread."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import DBSCAN

from models.heads import DBSCANHead, GlobalKMeans, ImageKMeans, KeptMaps
from models.heads.binary_rows import BitRows
from models.heads.dbscan import clusters
from models.heads.giaem import best_giaem, objective_surface
from models.heads.global_kmeans import two_means as two_means_of_maps
from models.heads.image_kmeans import two_means as two_means_of_pixels
from studies.bench import plain_heads
from studies.bench.maps import MapSet
from studies.bench.ratio import Ratio, measure, one_thread

PART = "heads"
GRID = np.linspace(0, 1, 100)  # the paper's, of both GIAEM parameters
GIAEM_MAPS = 1125  # the paper's number
ALPHA, SEED = 0.3, 0
QUANTILES = (0.5, 0.75, 0.95)  # of the errors: where Global KMeans has something to part
DBSCAN_SETTINGS = {0.01: (12, 100), 0.02: (40, 20), 0.05: (200, 9)}  # eps: min_samples, stated
SLOW = {0.01: 1, 0.02: 2, 0.05: 4}  # eps: so many times fewer images
INFEASIBLE = (0.005, 120)  # the paper's


@dataclass(frozen=True)
class HeadEffort:
    """How much is measured: rounds, thresholds of the plain GIAEM loop, images a clustering."""

    rounds: int
    giaem_thresholds: int
    images: int
    dbscan_images: int


FULL = HeadEffort(rounds=5, giaem_thresholds=10, images=150, dbscan_images=24)
QUICK = HeadEffort(rounds=1, giaem_thresholds=3, images=40, dbscan_images=8)


def head_ratios(sets: list[MapSet], effort: HeadEffort) -> Iterator[Ratio]:
    """Every head beside its plain self, on each kind of maps."""
    with one_thread():
        yield giaem(sets[0], effort)
        for maps in sets:
            yield from global_kmeans(maps, effort)
        for maps in sets:
            yield image_kmeans(maps, effort)
        for maps in sets:
            for eps, (min_samples, stated) in DBSCAN_SETTINGS.items():
                yield dbscan(maps, eps, min_samples, stated, effort)
        yield infeasible_dbscan(sets[0], effort)


def giaem(maps: MapSet, effort: HeadEffort) -> Ratio:
    """The whole grid and the exact optimum; the plain loop over a part of the thresholds."""
    chosen = np.arange(GIAEM_MAPS) % len(maps.values)
    values, labels = maps.values[chosen], maps.labels[chosen]
    some = np.linspace(5, 95, effort.giaem_thresholds).round().astype(int)

    def ours() -> tuple[np.ndarray, np.ndarray]:
        kept = KeptMaps(values)
        best_giaem(kept, labels, thresholds=GRID)
        return objective_surface(kept, labels, GRID, GRID)

    def peer() -> np.ndarray:
        return plain_heads.giaem_grid(values, labels, GRID[some], GRID)

    f2, specificity = ours()
    alike = np.allclose(f2[some], peer(), rtol=0, atol=1e-12)
    best = best_giaem(values, labels, thresholds=GRID).predict(values)
    optimum, _ = plain_heads.f2_and_specificity(labels, best)
    alike = alike and optimum >= f2[specificity >= 0.5].max() - 1e-12
    ratio = measure(
        PART,
        f"GIAEM, the grid of 100 x 100 and the exact optimum, {GIAEM_MAPS} maps",
        f"a loop over thresholds and scikit-learn's F-beta ({len(some)} of 100 thresholds, scaled)",
        peer,
        ours,
        rounds=effort.rounds,
        at_least=None,
        of_peer=len(some) / len(GRID),
    )
    return _checked(ratio, alike)


def global_kmeans(maps: MapSet, effort: HeadEffort) -> Iterator[Ratio]:
    """One threshold: the two kinds of map, the seeding too, and each map's answer."""
    for quantile in QUANTILES:
        threshold = float(np.quantile(maps.values, quantile))
        # a study checks its maps once; nothing of this threshold is kept in any of these
        fresh = [KeptMaps(maps.values) for _ in range(effort.rounds + 1)]

        def ours(threshold=threshold, fresh=fresh) -> np.ndarray:
            kept = fresh.pop()
            return GlobalKMeans(threshold, ALPHA, SEED).fit(kept).predict(kept)

        def peer(threshold=threshold) -> tuple[np.ndarray, np.ndarray]:
            return plain_heads.global_kmeans(maps.values, threshold, ALPHA, seed=SEED)

        rows = BitRows(maps.values >= np.float32(threshold))
        labels, answers = peer()
        same = np.array_equal(two_means_of_maps(rows, seed=SEED).labels, labels)
        ratio = measure(
            PART,
            f"Global KMeans, a threshold ({quantile:.0%} of errors below), {len(rows)} "
            f"{maps.kind} maps",
            "KMeans(2, n_init=1) of the binarised maps",
            peer,
            ours,
            rounds=effort.rounds,
            at_least=10,
        )
        yield _checked(ratio, same and np.array_equal(ours(), answers))


def image_kmeans(maps: MapSet, effort: HeadEffort) -> Ratio:
    """Some images in one call."""
    values = maps.values[_spread(len(maps.values), effort.images)]
    labels = two_means_of_pixels(KeptMaps(values), seed=SEED).reshape(len(values), -1)

    def ours() -> np.ndarray:
        return ImageKMeans(seed=SEED).fit(values).predict(values)

    ours()  # compiled before it is timed
    ratio = measure(
        PART,
        f"per-image KMeans, {len(values)} {maps.kind} maps",
        "KMeans(2, n_init=1) of each image's points",
        lambda: plain_heads.image_kmeans(values, seed=SEED),
        ours,
        rounds=effort.rounds,
        at_least=8,
    )
    return _checked(ratio, np.array_equal(labels, plain_heads.image_kmeans(values, seed=SEED)))


def dbscan(maps: MapSet, eps: float, min_samples: int, stated: float, effort: HeadEffort) -> Ratio:
    """Some images in one call; labels and core pixels held to scikit-learn's."""
    values = maps.values[_spread(len(maps.values), effort.dbscan_images // SLOW[eps])]
    alike = same_clusters(values, plain_heads.dbscan(values, eps, min_samples), eps, min_samples)

    def ours() -> np.ndarray:
        kept = KeptMaps(values)
        return DBSCANHead(eps, min_samples).fit(kept).predict(kept)

    ours()  # compiled before it is timed
    ratio = measure(
        PART,
        f"DBSCAN at eps {eps:g}, min_samples {min_samples}, {maps.kind} maps",
        f"DBSCAN of each image's points ({len(values)} images)",
        lambda: plain_heads.dbscan(values, eps, min_samples),
        ours,
        rounds=effort.rounds,
        at_least=stated,
    )
    return _checked(ratio, alike)


def same_clusters(values: np.ndarray, fitted: list[DBSCAN], eps: float, min_samples: int) -> bool:
    """Whether labels and core pixels of each map are those that scikit-learn found."""
    found = clusters(KeptMaps(values), eps=eps, min_samples=min_samples)
    return all(
        np.array_equal(one.labels.ravel(), theirs.labels_)
        and np.array_equal(np.flatnonzero(one.core), theirs.core_sample_indices_)
        for one, theirs in zip(found, fitted, strict=True)
    )


def infeasible_dbscan(maps: MapSet, effort: HeadEffort) -> Ratio:
    """A pair that can form no cluster is answered without a look at a pixel."""
    values = maps.values[_spread(len(maps.values), effort.dbscan_images)]
    eps, min_samples = INFEASIBLE
    fitted = plain_heads.dbscan(values, eps, min_samples)
    head = DBSCANHead(eps, min_samples).fit(values)
    ratio = measure(
        PART,
        f"DBSCAN at the paper's eps {eps:g}, min_samples {min_samples}: never a cluster",
        f"DBSCAN of each image's points ({len(values)} images)",
        lambda: plain_heads.dbscan(values, eps, min_samples),
        lambda: head.predict(KeptMaps(values)),
        rounds=effort.rounds,
        at_least=None,
    )
    same = all((one.labels_ == -1).all() for one in fitted) and not head.mask(values).any()
    return _checked(ratio, same)


def _checked(ratio: Ratio, alike: bool) -> Ratio:
    fault = "" if alike else "the results differ from scikit-learn's"
    return Ratio(**{**vars(ratio), "fault": fault})


def _spread(n: int, some: int) -> np.ndarray:
    """So many of n, evenly spread."""
    return np.linspace(0, n - 1, min(n, some)).round().astype(int)
