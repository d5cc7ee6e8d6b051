"""A fitted classifier: trained once, on both classes, never shown a test image."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from models import brain_cnn
from training import classifier
from training.cache import Cache
from training.classifier import ClassifierSpec, as_often, fit_classifier, score_images
from training.data import Dataset, Splits, load, split
from training.features import FeatureStore
from training.loop import TrainingError, as_input

CPU = torch.device("cpu")
TINY = {"image_size": 32, "width": 4, "n_epochs": 3, "batch_size": 8}


@pytest.fixture
def splits(phantom) -> Splits:
    """A few images of both classes in each split."""
    whole = split(phantom.labels, phantom.groups, scheme="classifier")
    few = [
        np.sort(part[np.argsort(phantom.labels[part])][[*range(8), *range(-8, 0)]])
        for part in whole
    ]
    return Splits(*few)


@pytest.fixture
def cache(tmp_path) -> Cache:
    return Cache(tmp_path / "cache")


def train(dataset: Dataset, splits: Splits, cache: Cache, hyperparameters=TINY, seed=0, **news):
    spec = ClassifierSpec(dict(hyperparameters), seed)
    store = FeatureStore(dataset, cache, CPU, say=lambda _: None)
    return fit_classifier(spec, splits, store, precision="fp32", **news)


def weights(fitted) -> torch.Tensor:
    return torch.cat([value.flatten() for value in fitted.network.state_dict().values()])


def spoilt(dataset: Dataset, indices: np.ndarray) -> Dataset:
    """The dataset with other pixels and labels at these indices, under the same digest."""
    images, labels = dataset.images.copy(), dataset.labels.copy()
    images[indices] = 255 - images[indices]
    labels[indices] = 1 - labels[indices]
    return replace(dataset, images=images, labels=labels)


def test_an_equal_training_is_found_and_not_repeated(phantom, splits, cache):
    epochs, starts = [], []
    news = {"on_epoch": lambda n, m: epochs.append(n), "on_train": lambda: starts.append(1)}
    first = train(phantom, splits, cache, **news)
    again = train(phantom, splits, cache, **news)
    assert (first.trained, again.trained) == (True, False)
    assert (epochs, starts) == ([1, 2, 3], [1])
    assert again.key == first.key
    assert again.history == first.history
    assert again.best_epoch == first.best_epoch
    assert torch.equal(weights(first), weights(again))
    assert set(first.history[0]) == {
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "seconds"),
        "val_misranked",
    }


@pytest.mark.parametrize("change", ["hyperparameter", "seed", "data", "split"])
def test_another_training_has_another_key(phantom, splits, cache, change):
    key = train(phantom, splits, cache).key
    other = {
        "hyperparameter": lambda: train(phantom, splits, cache, TINY | {"dropout": 0.4}),
        "seed": lambda: train(phantom, splits, cache, seed=1),
        "data": lambda: train(replace(phantom, digest="0" * 32), splits, cache),
        "split": lambda: train(phantom, splits._replace(train=splits.train[1:]), cache),
    }[change]()
    assert other.trained
    assert other.key != key


def test_test_images_teach_nothing_and_training_labels_do(phantom, splits, tmp_path):
    trained = [
        train(phantom, splits, Cache(tmp_path / "plain")),
        train(spoilt(phantom, splits.test), splits, Cache(tmp_path / "test")),
        train(spoilt(phantom, splits.train), splits, Cache(tmp_path / "train")),
    ]
    assert all(fitted.trained for fitted in trained)
    assert torch.equal(weights(trained[0]), weights(trained[1]))
    assert not torch.equal(weights(trained[0]), weights(trained[2]))


def test_the_training_images_are_told_apart_by_their_labels(phantom, splits, cache):
    quick = {"n_epochs": 25, "lr": 1e-2, "augmentation": 0.0, "weight_average": 0.0}
    by_heart = splits._replace(val=splits.train)  # the weights kept are those that know it best
    fitted = train(phantom, by_heart, cache, TINY | quick | {"flips": "none"})
    assert roc_auc_score(phantom.labels[splits.train], fitted.scores(splits.train)) > 0.9


def test_how_often_near_copies_are_seen_changes_the_training(phantom, splits, cache):
    train_images = np.flatnonzero(np.isin(phantom.groups, phantom.groups[splits.train]))
    whole = splits._replace(train=train_images)
    trained = [train(phantom, whole, cache, TINY | {"group_power": p}) for p in (0.0, 1.0)]
    assert not torch.equal(weights(trained[0]), weights(trained[1]))


def test_scores_are_the_log_odds_of_a_tumour_averaged_over_the_flips(phantom, splits, cache):
    indices = splits.val[[3, 1]]
    x = as_input(torch.from_numpy(phantom.images[indices]))
    plain = train(phantom, splits, cache, TINY | {"flips": "none"})
    with torch.no_grad():
        looks = [plain.network(x.flip(axes)) for axes in ((), (-1,), (-2,), (-2, -1))]
    log_odds = [(look.softmax(1)[:, 1] / look.softmax(1)[:, 0]).log().numpy() for look in looks]
    assert plain.scores(indices).dtype == np.float64
    np.testing.assert_allclose(plain.scores(indices), log_odds[0], atol=1e-5)
    flipped = train(phantom, splits, cache, TINY | {"flips": "all"})
    assert not flipped.trained and flipped.key == plain.key
    np.testing.assert_allclose(flipped.scores(indices), np.mean(log_odds, axis=0), atol=1e-5)


def test_the_monitored_auroc_is_that_of_the_validation_images(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    scores = score_images(fitted.network, phantom.images[splits.val], device=CPU)
    told = fitted.history[fitted.best_epoch - 1]["val_auroc"]
    assert told == pytest.approx(roc_auc_score(phantom.labels[splits.val], scores))


def test_the_epoch_that_ranks_the_validation_images_best_is_kept(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    told = [epoch["val_auroc"] for epoch in fitted.history]
    assert told[fitted.best_epoch - 1] == max(told)
    x = as_input(torch.from_numpy(phantom.images[splits.val]))
    losses = fitted.network.eval_step(x, torch.from_numpy(phantom.labels[splits.val]))
    kept = fitted.history[fitted.best_epoch - 1]["val_loss"]
    assert kept == pytest.approx(losses["loss"].item(), rel=1e-5)


def test_attribution_maps_have_the_images_size_and_reach_from_0_to_1(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    maps = fitted.attribution_maps(splits.val)
    assert maps.shape == (len(splits.val), 128, 128)
    assert maps.dtype == np.float32
    assert maps.min() == 0
    highest = maps.max(axis=(1, 2))
    assert set(highest.round(6).tolist()) <= {0.0, 1.0}  # 0 where no tumour is seen anywhere
    assert highest.any()


def test_an_attribution_map_turns_with_its_image(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    images = phantom.images[splits.val]
    maps, flipped = (
        classifier.attribution_maps(fitted.network, some, device=CPU, flips="all")
        for some in (images, images[:, :, ::-1])
    )
    np.testing.assert_allclose(flipped[:, :, ::-1], maps, atol=1e-4)


def test_features_are_a_row_an_image(phantom, splits, cache):
    fitted = train(phantom, splits, cache)
    rows = classifier.features(fitted.network, phantom.images[splits.val], device=CPU)
    logits = torch.from_numpy(rows) @ fitted.network.answering.classify[-1].weight.detach().T
    log_odds = (logits + fitted.network.answering.classify[-1].bias.detach()).diff(dim=1)
    scores = score_images(fitted.network, phantom.images[splits.val], device=CPU)
    np.testing.assert_allclose(log_odds.squeeze(1), scores, atol=1e-4)


def copies(groups: list[int]) -> Dataset:
    """Images of one class in these groups; the last one is of the other class."""
    labels = np.zeros(len(groups), np.int64)
    labels[-1] = 1
    empty = np.empty(0)
    values = dict.fromkeys(inspect.signature(Dataset).parameters, empty)
    return Dataset(**values | {"labels": labels, "groups": np.array(groups)})


@pytest.mark.parametrize(
    ("power", "seen"), [(1.0, [9, 1, 1, 1, 1]), (0.5, [6, 2, 2, 2, 1]), (0.0, [3, 3, 3, 3, 1])]
)
def test_a_group_of_near_copies_is_seen_as_often_as_it_counts(power, seen):
    dataset = copies([0] * 9 + [1, 2, 3, 4])
    drawn = as_often(np.arange(13), dataset, power=power)
    assert np.bincount(dataset.groups[drawn]).tolist() == seen
    assert len(set(drawn[drawn < 9].tolist())) == seen[0]  # near-copies take turns


def test_a_training_that_is_stopped_leaves_nothing(phantom, splits, cache):
    class Pruned(Exception): ...

    def prune(epoch, metrics):
        raise Pruned

    with pytest.raises(Pruned):
        train(phantom, splits, cache, on_epoch=prune)
    assert [path for path in cache.root.iterdir() if path.is_dir()] == []
    assert train(phantom, splits, cache).trained


def test_defaults_that_are_written_out_are_the_same_training():
    written_out = ClassifierSpec({"n_epochs": 3}).complete()
    assert {"variant", "lr", "patience", "group_power", "flips"} < set(written_out.hyperparameters)
    assert written_out.hyperparameters["n_epochs"] == 3
    assert written_out.complete() == written_out


def test_the_papers_classifier_is_one_set_of_hyperparameters():
    spec = ClassifierSpec(classifier.PAPER)
    assert {"n_epochs": 20, "batch_size": 64, "lr": 1e-3}.items() <= spec.fitted().items()
    assert isinstance(spec.build().network, brain_cnn.PaperNetwork)


def test_an_unknown_hyperparameter_lists_the_known_ones():
    with pytest.raises(TrainingError, match=r"no hyperparameter depth\. Known: variant, lr, .*"):
        ClassifierSpec({"depth": 3}).complete()


@pytest.mark.parametrize(("name", "value"), [("group_power", 1.5), ("flips", "vertical")])
def test_a_value_out_of_range_is_named(name, value):
    with pytest.raises(TrainingError, match=f"{name} must be .*got {value!r}"):
        ClassifierSpec({name: value}).complete()


@pytest.mark.slow
@pytest.mark.br35h
def test_four_epochs_rank_real_slices_without_near_copies_to_remember(br35h_dir, tmp_path):
    dataset = load(str(br35h_dir), root=tmp_path, say=lambda _: None)
    splits = split(dataset.labels, dataset.groups, scheme="classifier")
    fitted = train(dataset, splits, Cache(tmp_path / "cache"), {"n_epochs": 4})
    scores = fitted.scores(splits.val)
    assert roc_auc_score(dataset.labels[splits.val], scores) > 0.85
