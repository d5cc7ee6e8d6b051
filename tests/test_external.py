"""Other images: copies of the training images are found first, and one class is enough."""

from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from studies.__main__ import main
from studies.external import find_dataset, find_made, judge
from studies.external_images import ExternalImages, compare_intensities, find_seen, read_folder
from studies.external_report import Result, say_classes, say_drop, say_shift, write_words
from studies.study import StudyError
from training.data import DataError, load
from training.data.phantom import write as write_phantom

TRAINED, TESTED = np.array([0, 1, 2]), np.array([3, 4])


def images_of(frames, labels=None):
    """Frames as if they had been read from a folder."""
    n = len(frames)
    files = np.array([f"yes/{i}.png" for i in range(n)])
    labels = np.ones(n, np.int64) if labels is None else np.asarray(labels)
    return ExternalImages(None, files, labels, np.stack(frames), [])


@pytest.fixture
def few(phantom):
    """Ten phantom images, one of each of ten groups."""
    _, first = np.unique(phantom.groups, return_index=True)
    kept = first[:10]
    return replace(
        phantom,
        images=phantom.images[kept],
        labels=phantom.labels[kept],
        groups=phantom.groups[kept],
    )


@pytest.mark.parametrize(
    "copied",
    [
        lambda image: image,
        lambda image: image[:, ::-1],
        lambda image: image[::-1],
        lambda image: image[::-1, ::-1],
        lambda image: (image * 0.7).astype(np.uint8),
    ],
    ids=["same", "mirrored", "upside down", "turned", "darker"],
)
def test_a_copy_of_a_training_image_is_seen_whatever_its_label(few, copied):
    frames = [copied(few.images[1]), few.images[7]]
    labels = [1 - few.labels[1], few.labels[7]]
    seen = find_seen(images_of(frames, labels), few, TRAINED, TESTED)
    assert seen.in_training.tolist() == [True, False]
    assert seen.in_test.tolist() == [False, False]


def test_a_copy_of_a_test_image_is_told_and_stays(few):
    seen = find_seen(images_of([few.images[3], few.images[7]]), few, TRAINED, TESTED)
    assert seen.in_training.tolist() == [False, False]
    assert seen.in_test.tolist() == [True, False]


def test_a_copy_of_a_training_image_that_leaks_into_the_test_split_counts_as_trained_on(few):
    seen = find_seen(images_of([few.images[1]]), few, TRAINED, np.array([1, 3]))
    assert seen.in_training.tolist() == [True] and seen.in_test.tolist() == [False]


def test_near_copies_among_the_new_images_share_a_group(few):
    new = [few.images[7], few.images[7][:, ::-1], few.images[8]]
    groups = find_seen(images_of(new), few, TRAINED, TESTED).groups
    assert groups[0] == groups[1] != groups[2]


def test_a_folder_of_one_class_is_read(tmp_path, few):
    (tmp_path / "yes").mkdir()
    for i, image in enumerate(few.images[:3]):
        Image.fromarray(image).save(tmp_path / "yes" / f"{i}.png")
    (tmp_path / "yes" / "broken.png").write_text("no image")
    (tmp_path / "yes" / "notes.txt").write_text("none either")
    found = read_folder(tmp_path, "head")
    assert found.labels.tolist() == [1, 1, 1]
    assert found.frames.shape == (3, 128, 128)
    assert len(found.unreadable) == 1 and "broken.png" in found.unreadable[0]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "no").mkdir()
    with pytest.raises(DataError, match="yes/"):
        read_folder(tmp_path, "head")


def flat(values):
    """Images of one grey value each, on a black border."""
    frames = np.zeros((len(values), 128, 128), np.uint8)
    frames[:, 10:-10, 10:-10] = np.asarray(values)[:, None, None]
    return frames


def test_the_shift_is_that_of_the_foregrounds_means():
    shift = compare_intensities(flat([90, 110]), flat([120, 140]), n_groups=(2, 2))
    assert shift.known == (100, 10) and shift.external == (130, 10)
    assert shift.difference == pytest.approx(3)
    assert shift.distance == 1
    assert shift.error == 1


@pytest.mark.parametrize(
    ("values", "words"), [([94, 114], "are alike"), ([95, 115], "are shifted")]
)
def test_half_a_standard_deviation_is_a_shift(values, words):
    shift = compare_intensities(flat([90, 110]), flat(values), n_groups=(100, 100))
    assert f"Intensities {words}" in say_shift(shift, "healthy")


def test_a_shift_of_few_groups_may_be_chance():
    for n, words in ((15, "may be shifted"), (17, "are shifted")):  # 2 * sqrt(1 / n + 1 / n)
        shift = compare_intensities(flat([90, 110]), flat([97, 117]), n_groups=(n, n))
        assert f"Intensities {words}" in say_shift(shift, "healthy")


def test_of_tumours_alone_it_is_said_that_they_may_be_the_shift():
    shift = compare_intensities(flat([90, 110]), flat([190, 210]), n_groups=(100, 100))
    assert "tumours may be the difference" in say_shift(shift, "tumour")


def answers(labels, predicted, groups=None):
    groups = np.arange(len(labels)) if groups is None else groups
    return pd.DataFrame(
        {
            "file": "a",
            "label": labels,
            "score": np.asarray(predicted) - 0.5,
            "predicted": predicted,
            "group": groups,
        }
    )


def test_tumours_alone_have_a_recall_and_nothing_else():
    worth = judge(answers([1, 1, 1, 1], [1, 1, 1, 0]))
    assert list(worth) == ["recall"]
    value, low, high = worth["recall"]
    assert value == 0.75 and low < 0.75 < high


def test_healthy_images_alone_have_a_specificity_and_nothing_else():
    worth = judge(answers([0, 0, 0, 0], [1, 0, 0, 0]))
    assert list(worth) == ["specificity"] and worth["specificity"][0] == 0.75


def test_the_interval_of_one_class_draws_groups():
    few_groups = judge(answers([1] * 40, [1] * 20 + [0] * 20, groups=np.repeat([0, 1], 20)))
    assert few_groups["recall"] == (0.5, 0.0, 1.0)


def test_both_classes_have_every_metric():
    worth = judge(answers([0, 0, 1, 1], [0, 0, 1, 1]))
    assert worth["auroc"][0] == worth["recall"][0] == worth["macro_f1"][0] == 1


def result(**changed):
    said = answers([0, 0, 1, 1], [0, 1, 1, 1])
    base = Result(
        model="models:/giaem@candidate",
        folder=Path("/images/elsewhere"),
        n_images=6,
        unreadable=[],
        n_copies=2,
        n_test_copies=0,
        answers=said,
        worth=judge(said),
        on_test={"recall": (0.9, 0.8, 1.0), "auroc": (0.95, 0.9, 0.99)},
        shift=compare_intensities(flat([90, 110]), flat([90, 110]), n_groups=(2, 2)),
        compared="healthy",
    )
    return replace(base, **changed)


def test_the_words_say_what_was_left_out_and_show_both_columns():
    words = write_words(result())
    assert "2 were left out" in words and "of 6 in" in words
    assert "| recall | 1.000 (1.000 to 1.000) | 0.900 (0.800 to 1.000) |" in words
    assert "50% here" in words


def test_it_does_worse_where_the_whole_interval_lies_below():
    worse = result(worth={"auroc": (0.8, 0.7, 0.94)})
    assert "does worse here** in auroc" in say_drop(worse)
    assert "not shown to do worse" in say_drop(result(worth={"auroc": (0.8, 0.7, 0.95)}))


def test_what_depends_on_the_share_of_tumours_is_not_compared():
    other = result(worth={"accuracy": (0.2, 0.1, 0.3)}, on_test={"accuracy": (0.9, 0.8, 1.0)})
    assert "not shown to do worse" in say_drop(other)


def test_one_class_is_said_to_show_little():
    text = say_classes(result(answers=answers([1, 1], [1, 1])))
    assert "tumour images alone" in text and "specificity" in text
    assert say_classes(result()) == ""


def test_training_images_that_are_not_at_hand_are_a_sentence_with_a_cure(tmp_path):
    tags = {"data": "slices", "data_digest": "0" * 32, "split": "grouped", "seed": "0"}
    with pytest.raises(StudyError, match="make study` with their DATA"):
        find_made(tags, "models:/giaem@candidate", tmp_path)


def test_a_model_that_does_not_say_its_data_is_refused(tmp_path):
    with pytest.raises(StudyError, match="data_digest, seed, split"):
        find_made({"data": "slices"}, "models:/giaem@candidate", tmp_path)


def test_training_images_are_found_by_their_digest(tmp_path):
    write_phantom(tmp_path / "slices", n_images=60, n_groups=30)
    dataset = load(str(tmp_path / "slices"), root=tmp_path / "var", say=lambda _: None)
    found = find_dataset("slices", dataset.digest, tmp_path / "var")
    assert np.array_equal(found.images, dataset.images)
    assert find_dataset("slices", "0" * 32, tmp_path / "var") is None


@pytest.mark.slow
def test_a_registered_model_answers_a_folder_without_copies_of_its_training(
    tmp_path, monkeypatch, capsys
):
    slices, other, root = tmp_path / "slices", tmp_path / "other", tmp_path / "var"
    write_phantom(slices, n_images=120, n_groups=60)
    write_phantom(other, n_images=30, n_groups=30, seed=5)
    monkeypatch.setenv("VAR_DIR", str(root))
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    assert main(["run", "giaem", "--data", str(slices), "--trials", "3"]) == 0
    manifest = pd.read_csv(download(root, "giaem (slices)", "manifest.csv"))
    seen = manifest[manifest.split != "test"].file.head(6)
    for i, file in enumerate(seen):
        with Image.open(slices / file) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(other / "yes" / f"copy{i}.png")
    capsys.readouterr()
    model = "models:/giaem-slices@candidate"
    assert main(["external", str(other), "--model", model]) == 0
    said = capsys.readouterr().out
    assert "6 were left out" in said and "**30 images" in said
    table = pd.read_csv(root / "reports" / "external-other-giaem-slices-candidate.csv")
    left_out = table[table.left_out.notna()]
    assert sorted(left_out.file) == [f"yes/copy{i}.png" for i in range(6)]
    assert left_out.score.isna().all() and table.score.notna().sum() == 30
    assert "its study's test split" in said and "| auroc |" in said


def download(root, study, file):
    """A file of a study's parent run."""
    uri = f"sqlite:///{root / 'mlflow' / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.get_experiment_by_name(study)
    (parent,) = client.search_runs([experiment.experiment_id], "tags.trial IS NULL")
    return client.download_artifacts(parent.info.run_id, file)
