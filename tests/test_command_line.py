"""Wrong input on the command line: one clear sentence with the cure, and exit status 2."""

import sqlite3

import numpy as np
import pytest
from PIL import Image

from studies.__main__ import main


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Everything is written below a folder of the test's own."""
    monkeypatch.setenv("VAR_DIR", str(tmp_path / "var"))
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI", "BR35H_DIR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "var"


def fails(capsys, *arguments) -> str:
    """Run a command that must be refused, and return what it said."""
    try:
        status = main(list(arguments))
    except SystemExit as end:
        status = end.code
    assert status == 2
    message = capsys.readouterr().err.strip()
    assert "Traceback" not in message
    return message


def folder_of(path, *, yes=20, no=20, size=64):
    """A folder of distinct noise images."""
    rng = np.random.default_rng(0)
    for name, n in (("yes", yes), ("no", no)):
        (path / name).mkdir(parents=True)
        for i in range(n):
            image = Image.fromarray(rng.integers(0, 255, (size, size), dtype=np.uint8))
            image.save(path / name / f"{i}.png")
    return path


def test_an_unknown_study_lists_the_known_ones(root, capsys):
    assert "global_kmeans" in fails(capsys, "run", "globl_kmeans")


@pytest.mark.parametrize("trials", ["0", "abc", "-3", "1.5", ""])
def test_a_number_of_trials_that_is_none_is_refused(root, capsys, trials):
    message = fails(capsys, "run", "giaem", f"--trials={trials}")
    assert message == f"TRIALS must be a whole number of at least 1, got '{trials}'."


def test_a_timeout_that_is_none_is_refused(root, capsys):
    assert "TIMEOUT must be" in fails(capsys, "run", "giaem", "--timeout", "soon")


def test_an_unknown_split_lists_the_known_ones(root, capsys):
    message = fails(capsys, "run", "giaem", "--split", "random")
    assert "grouped" in message and "paper" in message


def test_an_unknown_device_lists_the_known_ones(root, capsys):
    assert "cpu, cuda, mps" in fails(capsys, "run", "giaem", "--device", "gpu")


def test_an_unknown_detector_lists_the_known_ones(root, capsys):
    assert "brain_cvae" in fails(capsys, "run", "giaem", "--detector", "brain_vae")


def test_data_that_is_nowhere_is_refused(root, capsys):
    assert "DATA must be" in fails(capsys, "run", "giaem", "--data", "/nowhere/at/all")


def test_a_folder_without_classes_is_refused(root, capsys, tmp_path):
    (tmp_path / "images" / "yes").mkdir(parents=True)
    message = fails(capsys, "run", "giaem", "--data", str(tmp_path / "images"))
    assert "no/" in message


def test_an_empty_class_is_refused(root, capsys, tmp_path):
    folder = folder_of(tmp_path / "images", no=0)
    assert "no" in fails(capsys, "run", "giaem", "--data", str(folder))


def test_too_few_groups_are_refused(root, capsys, tmp_path):
    folder = folder_of(tmp_path / "images", yes=9)
    assert "10" in fails(capsys, "run", "giaem", "--data", str(folder))


def test_a_tracking_database_that_is_none_is_refused_before_a_trial(root, capsys):
    (root / "mlflow").mkdir(parents=True)
    (root / "mlflow" / "mlflow.db").write_text("this is no database " * 50)
    message = fails(capsys, "run", "giaem", "--data", "phantom", "--trials", "1")
    assert "mlflow.db" in message


def test_an_optuna_database_of_another_version_is_refused(root, capsys):
    root.mkdir()
    with sqlite3.connect(root / "optuna.db") as database:
        database.execute(
            "create table version_info (version_info_id integer primary key, "
            "schema_version integer, library_version text)"
        )
        database.execute("insert into version_info values (1, 1, '0.1')")
    message = fails(capsys, "run", "giaem", "--data", "phantom", "--trials", "1")
    assert "optuna storage upgrade" in message


def test_evidence_of_no_split_is_refused(root, capsys):
    message = fails(capsys, "evidence", "giaem", "--splits", "0")
    assert message == "SPLITS must be a whole number of at least 1, got '0'."


def test_evidence_of_an_unknown_study_lists_the_known_ones(root, capsys):
    assert "global_kmeans" in fails(capsys, "evidence", "globl_kmeans")


def test_other_images_must_be_named(root, capsys):
    assert "DATA must name a folder" in fails(capsys, "external", "")


def test_other_images_that_are_nowhere_are_refused(root, capsys):
    assert "DATA must be a folder" in fails(capsys, "external", "/nowhere/at/all")


def test_a_model_without_alias_or_version_is_refused(root, capsys, tmp_path):
    message = fails(capsys, "external", str(tmp_path), "--model", "giaem")
    assert "models:/<name>@<alias>" in message


def test_a_model_that_is_not_registered_is_refused_with_a_cure(root, capsys, tmp_path):
    message = fails(capsys, "external", str(tmp_path), "--study", "giaem", "--seed", "3")
    assert "models:/giaem-seed-3@candidate" in message and "make study" in message


@pytest.mark.parametrize("n", ["0", "-1", "1.5", "many"])
def test_a_number_of_synthetic_images_that_is_none_is_refused(root, capsys, n):
    message = fails(capsys, "generate", "vae", f"--n={n}")
    assert message == f"N must be a whole number of at least 1, got '{n}'."


def test_a_billion_synthetic_images_are_refused_with_the_estimate(root, capsys):
    message = fails(capsys, "generate", "vae", "--n=1000000000")
    assert "about 24576.0 GB on disk" in message and "Ask for a smaller N" in message
    assert not (root / "synthetic").exists()


def test_an_unknown_generator_lists_the_known_ones(root, capsys):
    assert fails(capsys, "generate", "vea") == "Unknown generator 'vea'. Known: gan, vae."


def test_images_are_made_for_a_known_kind_of_study(root, capsys):
    message = fails(capsys, "generate", "vae", "--for", "head")
    assert "classifier" in message and "detector" in message


def test_training_images_are_of_a_known_kind(root, capsys):
    message = fails(capsys, "run", "giaem", "--train-on", "fake")
    assert "real" in message and "synthetic" in message and "mixed" in message


def test_training_on_images_that_are_not_made_offers_the_command(root, capsys):
    message = fails(capsys, "run", "giaem", "--data", "phantom", "--train-on", "synthetic")
    command = "make generate GENERATOR=vae FOR=detector SEED=0 DATA=phantom"
    assert message.endswith(f"there are none. Make them with `{command}`.")
