"""Groups of near-copies: what links two slices and what does not."""

import cv2
import numpy as np
import pytest

from training.data.copies import find_groups, thumbnail


def slices(n, seed=0):
    """Unlike smooth pictures, uint8 (n, 60, 60)."""
    noise = np.random.default_rng(seed).normal(size=(n, 12, 12))
    smooth = [cv2.resize(layer, (60, 60), interpolation=cv2.INTER_CUBIC) for layer in noise]
    return [np.clip(128 + 45 * layer, 0, 255).astype(np.uint8) for layer in smooth]


def groups_of(*pictures, labels=None):
    labels = np.zeros(len(pictures), dtype=int) if labels is None else np.array(labels)
    return find_groups(np.stack([thumbnail(picture) for picture in pictures]), labels)


def sharpened(picture):
    return cv2.addWeighted(picture, 1.8, cv2.GaussianBlur(picture, (0, 0), 1.5), -0.8, 0)


def re_encoded(picture):
    code = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)


@pytest.mark.parametrize(
    "change",
    [
        np.fliplr,
        np.flipud,
        lambda picture: np.rot90(picture, 2),
        sharpened,
        re_encoded,
        lambda picture: (picture * 0.5 + 20).astype(np.uint8),
        lambda picture: cv2.resize(picture, (91, 91)),
    ],
)
def test_a_changed_copy_is_in_its_original_s_group(change):
    original, other = slices(2)
    groups = groups_of(original, other, np.ascontiguousarray(change(original)))
    assert groups[0] == groups[2] != groups[1]


def test_a_quarter_turn_is_no_copy():
    (original,) = slices(1)
    groups = groups_of(original, np.ascontiguousarray(np.rot90(original)))
    assert groups[0] != groups[1]


def test_copies_of_copies_share_a_group():
    first, last = slices(2)
    steps = [cv2.addWeighted(first, 1 - t, last, t, 0) for t in np.linspace(0, 1, 30)]
    assert len(set(groups_of(*steps))) == 1
    assert len(set(groups_of(first, last))) == 2


def test_no_group_holds_both_labels():
    (picture,) = slices(1)
    assert len(set(groups_of(picture, picture, labels=[0, 1]))) == 2


def test_a_flat_thumbnail_is_a_group_of_its_own():
    (picture,) = slices(1)
    flat = np.full((60, 60), 7, np.uint8)
    assert len(set(groups_of(picture, flat, flat))) == 3


def test_groups_are_numbered_from_zero_without_gaps():
    groups = groups_of(*slices(6), *slices(6), labels=[0, 1] * 6)
    assert sorted(set(groups.tolist())) == list(range(6))
