"""`load`: which data it takes, what it says, and what it keeps."""

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from training.data import DataError, br35h, load, phantom, sources, store


@pytest.fixture
def no_network(monkeypatch):
    """A port of this machine on which nobody listens stands for the archive's server."""
    monkeypatch.delenv("BR35H_DIR", raising=False)
    monkeypatch.setattr(br35h, "URL", "http://127.0.0.1:9/archive.zip")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "patients"
    phantom.write(folder, n_images=40, n_groups=40, seed=1)
    return folder


def load_said(*args, **kwargs):
    said = []
    return load(*args, say=said.append, **kwargs), said


def test_a_folder_is_named_in_the_first_line(drawn, tmp_path):
    dataset, said = load_said(str(drawn), root=tmp_path)
    assert dataset.name == "patients"
    assert said[0] == f"patients: 40 images in {drawn.resolve()}"
    assert said[1].startswith("20 without and 20 with a tumour, 40 groups of near-copies")


def test_left_out_files_are_counted_and_named(drawn, tmp_path):
    folder = shutil.copytree(drawn, tmp_path / "spoilt")
    (folder / "no" / "n1.jpg").write_bytes(b"")
    dataset, said = load_said(str(folder), root=tmp_path)
    assert said[1].endswith("1 left out (no/n1.jpg: the file is empty)")
    assert dataset.left_out["file"].tolist() == ["no/n1.jpg"]


def test_br35h_is_found_where_the_environment_says(drawn, tmp_path, monkeypatch):
    monkeypatch.setenv("BR35H_DIR", str(drawn))
    for data in ("br35h", "auto"):
        dataset, said = load_said(data, root=tmp_path)
        assert dataset.name == "br35h" and said[0].startswith("Br35H: 40 images in")


def test_br35h_is_found_below_the_root(drawn, tmp_path, monkeypatch):
    monkeypatch.delenv("BR35H_DIR", raising=False)
    shutil.copytree(drawn, tmp_path / "data" / "br35h")
    assert load_said("br35h", root=tmp_path)[0].name == "br35h"


def test_a_wrong_br35h_dir_is_an_error_even_with_auto(tmp_path, monkeypatch):
    monkeypatch.setenv("BR35H_DIR", str(tmp_path / "typo"))
    with pytest.raises(DataError, match=r"BR35H_DIR names .*typo, which has no yes/ and no/"):
        load_said("auto", root=tmp_path)


def test_br35h_without_a_network_is_an_error_with_the_cure(no_network, tmp_path):
    with pytest.raises(DataError, match=r"Set BR35H_DIR to a folder .* or use DATA=phantom"):
        load_said("br35h", root=tmp_path)


def test_auto_without_a_network_takes_the_phantom_within_seconds_and_says_so(no_network, tmp_path):
    started = time.monotonic()
    dataset, said = load_said("auto", root=tmp_path)
    assert time.monotonic() - started < 30
    assert dataset.name == "phantom"
    assert said[0] == (
        "phantom set: 600 images, because no Br35H was found and the network did not answer; "
        "numbers on it say nothing about patients"
    )


def test_an_unknown_name_lists_what_is_known(tmp_path):
    with pytest.raises(DataError, match=r"auto, br35h, phantom or a folder .*, got 'fantom'"):
        load_said("fantom", root=tmp_path)


def test_an_unknown_pre_processing_is_refused(drawn, tmp_path):
    with pytest.raises(DataError, match="PREPROCESS must be one of head, paper, got 'canny'"):
        load_said(str(drawn), preprocess="canny", root=tmp_path)


def test_what_was_prepared_is_read_again_and_equal(drawn, tmp_path, monkeypatch):
    first, _ = load_said(str(drawn), root=tmp_path)
    monkeypatch.delattr(sources, "make_dataset")
    second, _ = load_said(str(drawn), root=tmp_path)
    for name in ("images", "labels", "groups", "masks", "has_mask"):
        before, after = getattr(first, name), getattr(second, name)
        assert np.array_equal(before, after) and before.dtype == after.dtype
    assert first.manifest.equals(second.manifest) and first.digest == second.digest


def test_a_changed_file_a_new_file_and_another_method_are_prepared_anew(drawn, tmp_path):
    folder = shutil.copytree(drawn, tmp_path / "set")
    digests = [load_said(str(folder), root=tmp_path)[0].digest]
    shutil.copy(folder / "no" / "n3.jpg", folder / "no" / "n2.jpg")
    digests.append(load_said(str(folder), root=tmp_path)[0].digest)
    shutil.copy(drawn / "no" / "n2.jpg", folder / "no" / "new.jpg")
    digests.append(load_said(str(folder), root=tmp_path)[0].digest)
    digests.append(load_said(str(folder), preprocess="paper", root=tmp_path)[0].digest)
    assert len(set(digests)) == 4


def test_a_damaged_preparation_is_made_again(drawn, tmp_path):
    first, _ = load_said(str(drawn), root=tmp_path)
    (images,) = (tmp_path / "data" / "prepared").glob("*/images.npy")
    images.write_bytes(images.read_bytes()[:1000])
    again, _ = load_said(str(drawn), root=tmp_path)
    assert np.array_equal(first.images, again.images)


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(drawn, tmp_path, monkeypatch):
    full = Path("/dev/full")  # answers every write as a full disk does
    if not full.exists():
        pytest.skip("needs /dev/full")
    monkeypatch.setattr(store.np, "save", lambda file, array: full.write_bytes(bytes(1)))
    with pytest.raises(DataError, match="disk is full"):
        load_said(str(drawn), root=tmp_path)
    assert not [path for path in (tmp_path / "data" / "prepared").iterdir() if path.is_dir()]


def test_unusable_data_leaves_no_preparation_behind(drawn, tmp_path):
    folder = shutil.copytree(drawn, tmp_path / "spoilt")
    for number in range(9):
        (folder / "no" / f"n{number}.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="9 of 40"):
        load_said(str(folder), root=tmp_path)
    assert not list((tmp_path / "data" / "prepared").glob("*/*"))
