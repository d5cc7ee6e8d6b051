"""The real images: their groups, their outlines, and that framing tells nothing of the label."""

import cv2
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.data import leaks_by_class, load, split

pytestmark = [pytest.mark.br35h, pytest.mark.slow]


@pytest.fixture(scope="module")
def br35h(br35h_dir, tmp_path_factory):
    return load(str(br35h_dir), root=tmp_path_factory.mktemp("br35h"), say=lambda _: None)


def silhouette(image):
    """The head's filled outline, 32 x 32."""
    hull = cv2.convexHull(cv2.findNonZero((image > 8).astype(np.uint8)))
    filled = cv2.fillConvexPoly(np.zeros(image.shape, np.float32), hull, 1.0)
    return cv2.resize(filled, (32, 32), interpolation=cv2.INTER_AREA).ravel()


def test_all_images_are_usable_and_801_are_outlined(br35h):
    assert np.bincount(br35h.labels).tolist() == [1500, 1500]
    assert br35h.left_out.empty
    assert br35h.has_mask.sum() == 801


def test_about_four_hundred_groups_of_copies_are_found(br35h):
    sizes = np.bincount(br35h.groups)
    assert 380 <= len(sizes) <= 430
    assert sizes.max() == 77
    assert sizes[sizes > 1].sum() > 2750


def test_heads_fill_the_frame_alike(br35h):
    content = [
        cv2.boundingRect(cv2.findNonZero((image > 8) * np.uint8(1))) for image in br35h.images
    ]
    longer = np.array(content)[:, 2:].max(axis=1)
    assert (longer >= 105).mean() > 0.99 and longer.max() <= 116


def test_the_silhouette_tells_next_to_nothing_of_the_label(br35h):
    silhouettes = np.stack([silhouette(image) for image in br35h.images])
    classifier = make_pipeline(
        PCA(30, random_state=0), StandardScaler(), LogisticRegression(max_iter=500)
    )
    aurocs = []
    for seed in range(3):
        scores = cross_val_predict(
            classifier,
            silhouettes,
            br35h.labels,
            groups=br35h.groups,
            cv=StratifiedGroupKFold(5, shuffle=True, random_state=seed),
            method="decision_function",
        )
        aurocs.append(roc_auc_score(br35h.labels, scores))
    assert np.mean(aurocs) < 0.62


def test_outlines_lie_in_the_head(br35h):
    inside = [
        (image[mask] > 0).mean()
        for image, mask in zip(br35h.images, br35h.masks, strict=True)
        if mask.any()
    ]
    assert len(inside) == 801 and np.mean(inside) > 0.97


@pytest.mark.parametrize("seed", range(5))
def test_grouped_parts_hold_the_paper_s_numbers_and_leak_nothing(br35h, seed):
    splits = split(br35h.labels, br35h.groups, seed=seed)
    counts = [np.bincount(br35h.labels[part], minlength=2) for part in splits]
    assert np.abs(np.array(counts) - [[1125, 0], [150, 600], [225, 900]]).max() <= 3
    assert leaks_by_class(splits, br35h.labels, br35h.groups) == {0: 0, 1: 0}


def test_the_paper_s_split_leaks_nearly_every_healthy_test_image(br35h):
    splits = split(br35h.labels, br35h.groups, protocol="paper")
    assert leaks_by_class(splits, br35h.labels, br35h.groups)[0] > 0.9
