"""Distances between sets of images: about 0 for alike ones, and what a collapse looks like."""

import numpy as np
import pytest
import torch

from models import brain_cnn
from training.fidelity import (
    Comparison,
    Judge,
    classifier_judge,
    fidelity,
    precision_and_recall,
    references,
    variety,
)

CPU = torch.device("cpu")


def corner(images):
    """Nine pixels: a feature space whose distances are worked out easily."""
    return images[:, :3, :3].reshape(len(images), -1).astype(np.float32)


JUDGE = Judge("pixels", corner, "pixels")


def noise(n, *, seed, mean=128):
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(mean, 20, (n, 128, 128)), 0, 255).astype(np.uint8)


def test_alike_sets_are_near_and_others_are_far():
    real = noise(100, seed=0)
    alike = fidelity(noise(100, seed=1), real, JUDGE, seed=0)
    other = fidelity(noise(100, seed=1, mean=170), real, JUDGE, seed=0)
    assert alike["kid_pixels"] == pytest.approx(0, abs=0.1)
    assert alike["precision_pixels"] > 0.7
    assert alike["recall_pixels"] > 0.7
    assert other["kid_pixels"] > 10 * abs(alike["kid_pixels"]) + 1
    assert other["fid_pixels"] > 5 * alike["fid_pixels"]
    assert other["precision_pixels"] < 0.5


def test_the_frechet_distance_of_a_shift_is_its_square():
    real = noise(50, seed=0, mean=100)
    spread = corner(real).std(axis=0)
    moved = fidelity(real + np.uint8(30), real, JUDGE, seed=0)["fid_pixels"]
    assert moved == pytest.approx(float(((30 / spread) ** 2).sum()), rel=0.01)


def test_the_same_seed_gives_the_same_distances_and_leaves_torchs_own_seed():
    before = torch.get_rng_state()
    one, two = (fidelity(noise(20, seed=1), noise(20, seed=0), JUDGE, seed=3) for _ in range(2))
    assert one == two
    assert torch.equal(before, torch.get_rng_state())


def test_what_a_training_is_watched_by_is_the_kernel_distance():
    samples, comparison = noise(20, seed=1), Comparison.of(noise(20, seed=0), JUDGE, seed=0)
    kid = comparison.fidelity(samples)["kid_pixels"]
    assert comparison(samples) == {"val_kid": kid}
    assert comparison.name == "kid_pixels-0"


def test_precision_and_recall_count_what_lies_within_reach():
    real = np.array([[0.0], [1.0], [2.0], [3.0], [100.0], [101.0], [102.0], [103.0]])
    samples = np.array([[0.5], [1.5], [2.5], [50.0], [1.0], [2.0]])
    groups = np.arange(8)
    precision, recall = precision_and_recall(samples, real, groups)
    assert precision == pytest.approx(5 / 6)  # 50 is within no one's reach of at most 3
    # 50 reaches to its third nearest sample, 48.5 away: 2 and more, up to 98.5; the others to 3
    assert recall == pytest.approx(4 / 8)


def test_copies_among_real_images_do_not_shrink_their_reach():
    real = np.repeat([[0.0], [10.0], [20.0], [30.0]], 4, axis=0)
    groups = np.repeat(np.arange(4), 4)
    assert precision_and_recall(np.array([[5.0]] * 4), real, groups)[0] == 1
    assert precision_and_recall(np.array([[5.0]] * 4), real, np.arange(16))[0] == 0


def test_one_image_repeated_has_no_variety():
    one = np.repeat(noise(1, seed=0), 10, axis=0)
    assert variety(one, seed=0)["ms_ssim"] == pytest.approx(1, abs=1e-4)
    assert variety(noise(10, seed=0), seed=0)["ms_ssim"] < 0.5
    assert Comparison.of(noise(10, seed=0), JUDGE, seed=0).feature_spread(one) < 1e-9


def test_near_copies_are_not_compared_for_variety():
    twins = np.repeat(noise(5, seed=0), 2, axis=0)
    groups = np.repeat(np.arange(5), 2)
    alike, apart = variety(twins, seed=0), variety(twins, seed=0, groups=groups)
    assert apart["ms_ssim"] < alike["ms_ssim"]
    with pytest.raises(ValueError, match="two groups or more"):
        variety(twins, seed=0, groups=np.zeros(10))


def test_real_images_are_the_best_to_hope_for_and_a_collapse_the_worst():
    known = references(noise(60, seed=0), noise(40, seed=1), JUDGE, seed=0)
    assert set(known["real"]) == set(known["collapse"])
    assert known["real"]["kid_pixels"] < known["collapse"]["kid_pixels"]
    assert known["real"]["ms_ssim"] < known["collapse"]["ms_ssim"]
    assert known["collapse"]["feature_spread"] < 1e-9
    assert known["collapse"]["recall_pixels"] == 0


def test_a_feature_that_never_varies_does_no_harm():
    judge = Judge("flat", lambda images: np.pad(corner(images), ((0, 0), (0, 1))), "flat")
    values = fidelity(noise(20, seed=1), noise(20, seed=0), judge, seed=0).values()
    assert np.isfinite(list(values)).all()


def test_a_classifiers_features_judge_and_its_weights_are_its_identity():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = [brain_cnn.build(width=4, image_size=32) for _ in range(2)]
    judges = [classifier_judge(network, CPU) for network in (*networks, networks[0])]
    assert judges[0].identity == judges[2].identity != judges[1].identity
    assert judges[0].features(noise(3, seed=0)).shape[0] == 3


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), "At least 8 samples are compared, got 3"),
        (np.zeros((9, 8, 8), np.float32), "samples must be uint8"),
    ],
)
def test_what_cannot_be_compared_is_refused(samples, message):
    with pytest.raises(ValueError, match=message):
        fidelity(samples, noise(10, seed=0), JUDGE, seed=0)
