"""`make predict`: which files are meant, what is said of each, and what is written beside that."""

import csv
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from registered import OURS, some_slices, tiny_classifier, tiny_detector, write_registered

from mlflow_server.registry import makes
from studies.__main__ import main
from studies.study import StudyError
from studies.use import predict
from studies.use.files import find_files

NOTE = "A research tool, not a medical device."
MODEL = "models:/tiny@candidate"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where a detector and a classifier are registered."""
    root = tmp_path_factory.mktemp("use") / "var"
    write_registered(root, tiny_detector(), "tiny")
    write_registered(root, tiny_classifier(), "classifier")
    return root


@pytest.fixture(autouse=True)
def at_root(root, monkeypatch):
    monkeypatch.setenv("VAR_DIR", str(root))
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path):
    """Eight slices as PNG, two folders deep."""
    for i, image in enumerate(some_slices(8)):
        path = tmp_path / "slices" / ("a" if i < 4 else "b") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    return tmp_path / "slices"


def add_bad(folder: Path) -> list[str]:
    """Files that cannot be asked about."""
    good = (folder / "a" / "0.png").read_bytes()
    contents = {"cut.png": good[: len(good) // 2], "empty.png": b"", "text.png": b"hello"}
    flat = io.BytesIO()
    Image.new("L", (60, 60), 7).save(flat, "PNG")
    contents["flat.png"] = flat.getvalue()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return sorted(contents)


def ask(capsys, *arguments) -> tuple[int, str, str]:
    """Run `predict`: exit status, stdout, stderr."""
    capsys.readouterr()
    status = main(["predict", *map(str, arguments)])
    return status, *capsys.readouterr()


def ask_json(capsys, *arguments) -> tuple[int, dict]:
    status, said, _ = ask(capsys, *arguments, "--model", MODEL, "--json")
    return status, json.loads(said)


def names(words) -> list[str]:
    return [named.name for named in find_files(list(map(str, words)))]


def test_a_folder_is_searched_to_the_bottom_and_hidden_files_are_left(folder):
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    assert names([folder]) == [str(folder / ("a" if i < 4 else "b") / f"{i}.png") for i in range(8)]


def test_a_file_that_is_named_twice_is_asked_once(folder):
    assert len(names([folder / "a", folder / "a" / "0.png", f"{folder}/*/0.png"])) == 4


def test_words_that_make_gives_as_one_are_told_apart(folder):
    assert len(names([f"{folder}/a/0.png {folder}/b/*.png"])) == 5
    spaced = folder / "my scans" / "one.png"
    spaced.parent.mkdir()
    spaced.write_bytes(b"")
    assert names([spaced]) == names([f"'{spaced}'"]) == names([f"'{spaced}' '{spaced}'"])


def test_files_without_a_suffix_that_are_dicom_are_images(folder):
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM")
    (folder / "README").write_bytes(b"text")
    assert names([folder])[0] == str(folder / "IM0001") and len(names([folder])) == 9


@pytest.mark.parametrize("words", [[], [""], ["  "]])
def test_no_images_are_refused_with_an_example(words):
    with pytest.raises(StudyError, match=r"IMAGES names no images.*make predict IMAGES="):
        find_files(words)


def test_answers_are_those_of_the_model(capsys, folder):
    status, said = ask_json(capsys, folder)
    images = [cv2.imread(each["file"], cv2.IMREAD_GRAYSCALE) for each in said["predictions"]]
    expected = tiny_detector().predict(images)
    assert status == 0 and len(images) == 8
    assert [each["score"] for each in said["predictions"]] == expected.score.tolist()
    assert [each["label"] for each in said["predictions"]] == expected.label.tolist()
    assert {0, 1} == set(expected.label)
    assert said["note"] == NOTE and said["model"] == MODEL and said["unread"] == []


def test_a_margin_is_the_score_in_percent_of_the_threshold(capsys, folder):
    _, said = ask_json(capsys, folder)
    threshold = tiny_detector().head.threshold
    for each in said["predictions"]:
        assert each["margin"] == pytest.approx(100 * each["score"] / threshold)
    assert said["margin_unit"] == "% of the threshold"


def test_batches_do_not_change_answers(capsys, folder, monkeypatch):
    whole = ask_json(capsys, folder)[1]["predictions"]
    monkeypatch.setattr(predict, "FILES_AT_A_TIME", 3)
    parts = ask_json(capsys, folder)[1]["predictions"]
    assert [each["file"] for each in parts] == [each["file"] for each in whole]
    np.testing.assert_allclose(
        [each["score"] for each in parts], [each["score"] for each in whole], atol=1e-6
    )


def test_bad_files_are_said_each_and_the_rest_is_answered(capsys, folder):
    bad = add_bad(folder)
    gone = folder / "gone.png"
    status, said, errors = ask(capsys, folder, gone, "--model", MODEL, "--json")
    said = json.loads(said)
    assert status == 1 and len(said["predictions"]) == 8
    assert [Path(each["file"]).name for each in said["unread"]] == [*bad, "gone.png"]
    reasons = {Path(each["file"]).name: each["problem"] for each in said["unread"]}
    assert "truncated" in reasons["cut.png"] and reasons["empty.png"] == "the file is empty"
    assert "shows no head" in reasons["flat.png"] and reasons["text.png"] == "the file is no image"
    assert reasons["gone.png"] == "there is no such file"
    assert len(errors.strip().splitlines()) == 5


def test_where_nothing_can_be_read_nothing_was_asked(capsys, folder):
    add_bad(folder)
    status, said, errors = ask(capsys, folder / "empty.png", "--model", MODEL, "--json")
    assert (status, said) == (2, "")
    assert "nothing was asked" in errors


def test_the_table_has_a_line_an_image_and_says_how_to_read_it(capsys, folder):
    add_bad(folder)
    status, said, _ = ask(capsys, folder, "--model", MODEL)
    lines = said.splitlines()
    assert status == 1 and lines[0].split() == ["file", "answer", "score", "margin"]
    assert sum(".png" in line for line in lines) == 8
    assert "8 images:" in said and "4 could not be read" in said
    assert "% of the threshold" in said and NOTE in said


def test_csv_has_a_row_for_every_file_and_the_note_in_each(capsys, folder, tmp_path):
    add_bad(folder)
    path = tmp_path / "new" / "answers.csv"
    ask(capsys, folder, "--model", MODEL, "--csv", path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and {row["note"] for row in rows} == {NOTE}
    answered = [row for row in rows if not row["problem"]]
    assert len(answered) == 8
    assert all((float(row["score"]) >= 0) == (row["label"] == "1") for row in answered)


def test_csv_that_cannot_be_written_is_said_before_anything_is_asked(capsys, folder):
    status, said, errors = ask(capsys, folder, "--model", MODEL, "--csv", folder, "--json")
    assert (status, said) == (2, "") and "CSV cannot be written" in errors


@pytest.mark.parametrize("model", [MODEL, "models:/classifier@candidate"])
def test_pictures_are_drawn_below_the_folder_and_regions_lie_in_the_image(
    capsys, folder, tmp_path, model
):
    arguments = (folder, "--model", model, "--json", "--overlay", tmp_path / "pictures")
    status, said, _ = ask(capsys, *arguments)
    said = json.loads(said)["predictions"]
    drawn = sorted((tmp_path / "pictures").rglob("*.png"))
    assert status == 0 and [Path(each["overlay"]) for each in said] == drawn
    assert drawn[0].relative_to(tmp_path / "pictures") == Path("a/0.png.png")
    for each in said:
        with Image.open(each["file"]) as image:
            width, height = image.size
        region = each["region"]
        assert (region is None) == (each["label"] == 0)
        if region:
            assert region["left"] >= 0 and region["left"] + region["width"] <= width
            assert region["top"] >= 0 and region["top"] + region["height"] <= height
    plain, *_ = ask(capsys, folder, "--model", model, "--json")
    assert plain == 0


def test_pictures_do_not_change_answers(capsys, folder, tmp_path):
    with_pictures = ask_json(capsys, folder, "--overlay", tmp_path)[1]["predictions"]
    without = ask_json(capsys, folder)[1]["predictions"]
    assert [each["score"] for each in with_pictures] == [each["score"] for each in without]


def test_an_unknown_model_is_said_with_the_cure(capsys, folder):
    status, _, errors = ask(capsys, folder)
    assert status == 2 and "tumor-detector" in errors
    assert "make promote STUDY=" in errors and "MODEL=models:/global_kmeans@candidate" in errors


def test_a_path_is_no_model(capsys, folder):
    status, _, errors = ask(capsys, folder, "--model", "/tmp/model")
    assert status == 2 and "MODEL must be models:/" in errors


@pytest.mark.parametrize("slice_", ["-1", "first", "1.5"])
def test_a_slice_that_is_none_is_refused(capsys, folder, slice_):
    with pytest.raises(SystemExit) as end:
        main(["predict", str(folder), f"--slice={slice_}"])
    assert end.value.code == 2
    assert "SLICE must be middle, all or a number" in capsys.readouterr().err


def test_a_model_with_other_code_is_said(root, capsys, folder, tmp_path):
    assert ask(capsys, folder, "--model", MODEL)[2] == ""
    for package in OURS:
        shutil.copytree(package, tmp_path / "code" / package.name)
    with (tmp_path / "code" / "training" / "metrics.py").open("a") as file:
        file.write("# changed\n")
    code = [tmp_path / "code" / package.name for package in OURS]
    model = write_registered(root, tiny_detector(), "older", code)
    assert f"{model} was registered with other code" in ask(capsys, folder, "--model", model)[2]


def test_a_generator_is_refused(root, capsys, folder, tmp_path, monkeypatch):
    (tmp_path / "nil.py").write_text("def load(folder):\n    return object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = write_registered(
        root,
        tiny_detector(),
        "maker",
        [tmp_path / "nil.py"],
        flavour=makes(),
        loader="nil:load",
    )
    status, _, errors = ask(capsys, folder, "--model", model)
    assert status == 2 and f"{model} makes images" in errors
