"""The controls take from the data what they say, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from training.controls import file_geometry, permuted_labels, silhouettes
from training.data import Dataset, split
from training.data.dataset import digest


def with_labels(dataset: Dataset, labels, groups) -> Dataset:
    """The first images of a data set under other labels and groups."""
    n = len(labels)
    return replace(
        dataset,
        images=dataset.images[:n],
        labels=np.asarray(labels),
        groups=np.asarray(groups),
        manifest=dataset.manifest.head(n).assign(label=labels, group=groups),
    )


def test_permuted_labels_give_a_group_of_copies_one_label(phantom):
    permuted = permuted_labels(phantom, seed=3)
    for group in np.unique(phantom.groups):
        assert len(np.unique(permuted.labels[permuted.groups == group])) == 1


def test_permuted_labels_keep_the_class_sizes_where_the_groups_allow_it(phantom):
    data = with_labels(phantom, [0, 0, 0, 0, 1, 1, 1, 1], groups=[0, 0, 1, 1, 2, 2, 3, 3])
    assert all(permuted_labels(data, seed).labels.sum() == 4 for seed in range(10))


def test_permuted_labels_miss_the_class_sizes_by_half_a_group_at_most(phantom):
    data = with_labels(phantom, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], groups=[0] * 3 + [1] * 2 + [2] * 5)
    healthy = {int((permuted_labels(data, seed).labels == 0).sum()) for seed in range(20)}
    assert healthy == {3, 5, 7}  # a first group of 3 is followed by 5 or 2, of 2 by 5 or 3


def test_permuted_labels_say_nothing_of_the_true_ones(phantom):
    agreement = [
        (permuted_labels(phantom, seed).labels == phantom.labels).mean() for seed in range(20)
    ]
    assert np.mean(agreement) == pytest.approx(0.5, abs=0.05)


def test_permuted_labels_depend_on_the_seed_alone(phantom):
    assert np.array_equal(permuted_labels(phantom, 1).labels, permuted_labels(phantom, 1).labels)
    assert not np.array_equal(
        permuted_labels(phantom, 1).labels, permuted_labels(phantom, 2).labels
    )


def test_silhouettes_hold_two_grey_values_and_the_head(phantom):
    data = with_labels(phantom, phantom.labels[:5], phantom.groups[:5])
    made = silhouettes(data).images
    assert set(np.unique(made)) == {0, 255}
    assert made.shape == data.images.shape
    assert (data.images[made == 0] > 25).mean() < 0.01
    assert (data.images[made == 255] > 25).mean() > 0.9


def test_silhouettes_forget_what_is_inside_the_head(phantom):
    data = with_labels(phantom, phantom.labels[:5], phantom.groups[:5])
    changed = data.images.copy()
    changed[:, 60:68, 60:68] = 128
    other = replace(data, images=changed)
    assert (silhouettes(data).images != silhouettes(other).images).mean() < 0.005


@pytest.mark.parametrize("control", [lambda data: permuted_labels(data, 0), silhouettes])
def test_a_control_is_another_data_set_and_says_so(phantom, control):
    data = with_labels(phantom, phantom.labels, phantom.groups)
    changed = control(data)
    assert changed.name != data.name
    assert changed.digest != data.digest
    assert changed.digest == digest(
        changed.images, changed.labels, changed.groups, preprocess=changed.preprocess
    )
    assert changed.manifest.label.to_list() == changed.labels.tolist()


def test_file_geometry_reads_the_class_off_the_files_sizes_where_they_differ(phantom):
    sizes = np.where(phantom.labels == 1, 200, 300)
    data = replace(phantom, manifest=phantom.manifest.assign(width=sizes, height=256))
    scored = file_geometry(data, split(data.labels, data.groups))
    assert scored.metrics["auroc"] == 1
    assert scored.metrics["recall"] == scored.metrics["specificity"] == 1


def test_file_geometry_knows_nothing_where_all_files_have_one_size(phantom):
    data = replace(phantom, manifest=phantom.manifest.assign(width=256, height=256))
    assert file_geometry(data, split(data.labels, data.groups)).metrics["auroc"] == 0.5


def test_file_geometry_does_not_learn_from_test_labels(phantom):
    splits = split(phantom.labels, phantom.groups)
    labels = phantom.labels.copy()
    labels[splits.test] = 1 - labels[splits.test]
    flipped = file_geometry(replace(phantom, labels=labels), splits)
    assert np.array_equal(flipped.scores, file_geometry(phantom, splits).scores)
