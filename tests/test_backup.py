"""`make backup` and `make restore`: all of it, in another place, and never half of it."""

import hashlib
import io
import json
import sqlite3
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest
from filelock import FileLock
from house import House, make_template
from mlflow import MlflowClient
from PIL import Image

from mlflow_server import Tracking, TrackingError, local_artifacts, local_uri
from mlflow_server.registry import load_model
from mlflow_server.relocate import relocate
from studies.__main__ import main
from studies.settings import Settings
from studies.storage import running_trials, searches
from studies.study import StudyError
from studies.trial_model import load_trial_model
from studies.upkeep.archive import CHECKSUMS, FORMAT, HEADER
from studies.upkeep.backup import back_up, copy_database, missing
from studies.upkeep.gc import LOCK, collect
from studies.upkeep.restore import restore
from studies.worker import WORKER, this_worker
from training.data import phantom


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def house(tmp_path, template):
    return House(tmp_path / "var", template)


def settings_at(root) -> Settings:
    return Settings(root, f"sqlite:///{root / 'optuna.db'}", local_uri(root))


def names_in(archive) -> set[str]:
    with tarfile.open(archive) as tar:
        return set(tar.getnames())


def tree(folder) -> dict[str, str]:
    """The digest of every file below a folder, locks left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


# The way there and back


def test_a_platform_is_restored_to_another_place_with_all_that_it_knows(
    house, template, tmp_path, capsys
):
    study = house.study("giaem")
    runs = [house.trial(study, value) for value in (0.1, 0.9)]
    model = house.model(runs[1])
    house.version(model, "giaem", "candidate")
    numbers = [house.numbers(run) for run in runs]
    archive = back_up(house.settings, str(tmp_path / "kept.tar.gz"))
    old = house.root.rename(tmp_path / "away")
    place = restore(settings_at(house.root), archive, tmp_path / "a new é place", replace=False)
    assert f"Use it with VAR_DIR={place}" in capsys.readouterr().out
    there = House(place, template)
    there.limits = house.limits
    assert there.answers("models:/giaem@candidate", model)
    assert [there.numbers(run) for run in runs] == numbers
    assert all(there.has_weights(run) for run in runs)
    assert [one.study_name for one in searches(there.storage_url)] == ["giaem"]
    third = there.trial(optuna.load_study(study_name="giaem", storage=there.storage), 0.95)
    assert there.tracking.tags(third)["detector_run"] == runs[0]
    collect(there.settings, keep=1, dry=False)
    assert there.is_cleaned(runs[1]) is False and there.has_weights(third)
    assert there.answers("models:/giaem@candidate", model)
    assert (old / "optuna.db").exists()


def test_an_archive_says_what_it_holds_and_leaves_out_what_is_made_again(house, tmp_path, capsys):
    house.trial(house.study("giaem"), 0.1)
    for name in ("data/prepared/a/images.npy", "data/prepared/a/manifest.csv", "data/br35h/1.png"):
        (house.root / name).parent.mkdir(parents=True, exist_ok=True)
        (house.root / name).write_text("x")
    (house.root / "synthetic" / "vae").mkdir(parents=True)
    (house.root / "synthetic" / "vae" / "manifest.json").write_text("{}")
    first = back_up(house.settings, None)
    assert first.parent == house.root / "backups"
    assert "Not in it: images" in capsys.readouterr().out
    folder = tmp_path / "elsewhere"
    names = names_in(back_up(house.settings, str(folder)))
    assert {"optuna.db", "mlflow/mlflow.db", "manifests/a/manifest.csv", HEADER} <= names
    assert {"synthetic/vae/manifest.json", "studies/giaem/evidence/report.html"} <= names
    assert not [name for name in names if name.startswith(("cache", "data", "backups", "."))]
    with tarfile.open(next(folder.iterdir())) as tar:
        header = json.loads(tar.extractfile(HEADER).read())
        checksums = json.loads(tar.extractfile(CHECKSUMS).read())
    assert header["format"] == FORMAT and header["root"] == str(house.root)
    assert {"mlflow", "optuna"} <= set(header["versions"])
    assert set(checksums) == names - {HEADER, CHECKSUMS}


def test_a_database_that_is_written_to_is_copied_whole(tmp_path):
    path, copy = tmp_path / "live.db", tmp_path / "copy.db"
    stop = threading.Event()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE pair (name TEXT, value INT)")
        connection.commit()

    def write():
        with closing(sqlite3.connect(path, timeout=60)) as connection:
            for value in range(100_000):
                with connection:  # both or neither
                    connection.execute("INSERT INTO pair VALUES ('a', ?)", (value,))
                    connection.execute("INSERT INTO pair VALUES ('b', ?)", (value,))
                if stop.is_set():
                    return

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            copy.unlink(missing_ok=True)
            copy_database(path, copy)
            with closing(sqlite3.connect(copy)) as whole:
                assert whole.execute("PRAGMA quick_check").fetchone() == ("ok",)
                a, b = whole.execute("SELECT sum(name = 'a'), sum(name = 'b') FROM pair").fetchone()
                assert a == b
    finally:
        stop.set()
        writer.join()


def test_the_log_of_an_open_database_is_in_its_copy_and_not_beside_it(house, tmp_path):
    house.trial(house.study("giaem"), 0.1)
    assert (house.root / "optuna.db-wal").exists()
    archive = back_up(house.settings, str(tmp_path / "kept.tar"))
    with tarfile.open(archive) as tar:
        assert not [name for name in tar.getnames() if name.endswith(("-wal", "-shm"))]
    place = restore(settings_at(house.root), archive, tmp_path / "there", replace=False)
    (restored,) = searches(f"sqlite:///{place / 'optuna.db'}")
    assert [trial.value for trial in restored.trials] == [0.1]


def test_databases_elsewhere_come_to_their_usual_place(house, template, tmp_path):
    house.trial(house.study("giaem"), 0.1)
    (tmp_path / "fast").mkdir()
    house.close()
    moved = (house.root / "optuna.db").rename(tmp_path / "fast" / "trials.db")
    settings = Settings(house.root, f"sqlite:///{moved}", house.uri)
    archive = back_up(settings, str(tmp_path / "kept.tar"))
    place = restore(settings_at(house.root), archive, tmp_path / "there", replace=False)
    assert [one.study_name for one in searches(f"sqlite:///{place / 'optuna.db'}")] == ["giaem"]


def test_files_on_another_disk_are_saved_and_found_again(house, template, tmp_path):
    disk = (house.root / "mlflow").rename(tmp_path / "disk")
    (house.root / "mlflow").symlink_to(disk)
    linked = House(house.root, template)
    run = linked.trial(linked.study("giaem"), 0.1)
    assert linked.folder(run).is_relative_to(disk)
    archive = back_up(linked.settings, str(tmp_path / "kept.tar.gz"))
    place = restore(settings_at(house.root), archive, tmp_path / "there", replace=False)
    there = House(place, template)
    assert there.folder(run).is_relative_to(place) and there.has_weights(run)


def test_trials_that_ran_are_over_in_a_restored_platform(house, tmp_path):
    study = house.study("giaem")
    house.trial(study, 0.1)
    study.ask().set_user_attr(WORKER, {**this_worker(), "host": "another"})
    archive = back_up(house.settings, str(tmp_path / "kept.tar.gz"))
    place = restore(house.settings, archive, tmp_path / "there", replace=False)
    (restored,) = searches(f"sqlite:///{place / 'optuna.db'}")
    assert [trial.state.name for trial in restored.trials] == ["COMPLETE", "FAIL"]
    assert "running when the backup was made" in restored.trials[1].user_attrs["interrupted"]
    assert running_trials(study) and not running_trials(restored)


def test_a_server_or_another_database_is_said_with_what_to_do(tmp_path):
    settings = Settings(tmp_path, "postgresql://me:secret@db/trials", "http://127.0.0.1:5000")
    trials, record = missing(settings)
    assert "postgresql://me:***@db/trials" in trials and "`pg_dump --file=trials.sql`" in trials
    assert "http://127.0.0.1:5000, a server: save its database" in record


# What is refused


def test_a_folder_with_studies_is_not_overwritten_unless_told(house, template, tmp_path, capsys):
    study = house.study("giaem")
    house.trial(study, 0.1)
    archive = back_up(house.settings, None)
    house.trial(study, 0.2)
    before = tree(house.root)
    with pytest.raises(StudyError, match=r"holds studies already: .*INTO=.*REPLACE=1"):
        restore(house.settings, archive, None, replace=False)
    assert tree(house.root) == before
    study.ask().set_user_attr(WORKER, this_worker())
    with pytest.raises(StudyError, match="is in use: giaem runs"):
        restore(house.settings, archive, None, replace=True)
    study.tell(2, state=optuna.trial.TrialState.FAIL)
    restore(house.settings, archive, None, replace=True)
    (restored,) = searches(house.storage_url)
    assert len(restored.trials) == 1
    assert archive.exists() and (house.root / "cache").exists()  # not in it, and still there
    (aside,) = tmp_path.glob("var.before-*")
    (replaced,) = searches(f"sqlite:///{aside / 'optuna.db'}")
    assert len(replaced.trials) == 3
    assert f"What was there is in {aside}" in capsys.readouterr().out


def test_a_folder_with_images_alone_takes_a_backup_and_keeps_them(house, tmp_path):
    archive = back_up(house.settings, str(tmp_path / "kept.tar.gz"))
    (tmp_path / "there" / "data" / "br35h").mkdir(parents=True)
    (tmp_path / "there" / "data" / "br35h" / "1.png").write_text("x")
    place = restore(house.settings, archive, tmp_path / "there", replace=False)
    assert (place / "data" / "br35h" / "1.png").exists() and (place / "optuna.db").exists()
    assert not list(tmp_path.glob("there.before-*"))


@pytest.fixture(scope="module")
def archive(template, tmp_path_factory):
    folder = tmp_path_factory.mktemp("archive")
    house = House(folder / "var", template)
    house.trial(house.study("giaem"), 0.1)
    return back_up(house.settings, str(folder / "whole.tar"))


def rewritten(archive, folder, change):
    """The archive with its members passed through `change`: (member, content) -> list of both."""
    path = folder / "changed.tar"
    with tarfile.open(archive) as tar, tarfile.open(path, "w") as new:
        for member in tar:
            for one, content in change(member, tar.extractfile(member).read()):
                one.size = len(content)
                new.addfile(one, io.BytesIO(content))
    return path


def refused(archive, folder, match):
    """It is refused, and leaves nothing behind."""
    before = set(folder.iterdir())
    with pytest.raises(StudyError, match=match):
        restore(settings_at(folder / "new"), archive, None, replace=False)
    assert set(folder.iterdir()) == before


def test_a_damaged_archive_is_refused(archive, tmp_path):
    whole = archive.read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[: len(whole) // 2])
    refused(cut, tmp_path, "is damaged")
    place = whole.index(b"png" * 100)
    flipped = tmp_path / "flipped.tar"
    flipped.write_bytes(whole[:place] + b"P" + whole[place + 1 :])
    refused(flipped, tmp_path, r"damaged: 1 of \d+ files .*samples.png")
    text = tmp_path / "text.tar.gz"
    text.write_text("not an archive")
    refused(text, tmp_path, "is damaged, or no archive")
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as tar:
        tar.add(text, "text")
    refused(other, tmp_path, "not an archive that `make backup` wrote")
    refused(tmp_path / "none.tar", tmp_path, "There is no archive")


def test_files_that_nobody_wrote_down_and_missing_ones_are_refused(archive, tmp_path):
    def drop(member, content):
        return [] if member.name.endswith("samples.png") else [(member, content)]

    def add(member, content):
        more = [(tarfile.TarInfo("more"), b"x")] if member.name == "optuna.db" else []
        return [(member, content), *more]

    refused(rewritten(archive, tmp_path, drop), tmp_path, "is damaged: 1 of")
    refused(rewritten(archive, tmp_path, add), tmp_path, "is damaged: 1 of .*more")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../escaped", tarfile.REGTYPE),
        ("studies/../../escaped", tarfile.REGTYPE),
        ("/tmp/escaped", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("hard", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
        ("pipe", tarfile.FIFOTYPE),
    ],
)
def test_an_archive_that_would_write_elsewhere_is_refused(archive, tmp_path, name, kind):
    def smuggle(member, content):
        if member.name != CHECKSUMS:
            return [(member, content)]
        evil = tarfile.TarInfo(name)
        evil.type, evil.linkname = kind, "/etc/passwd"
        return [(evil, b""), (member, content)]

    refused(rewritten(archive, tmp_path, smuggle), tmp_path, "would write outside of its folder")


def test_a_later_format_is_refused(archive, tmp_path):
    def later(member, content):
        if member.name == HEADER:
            content = json.dumps(json.loads(content) | {"format": FORMAT + 1}).encode()
        return [(member, content)]

    refused(rewritten(archive, tmp_path, later), tmp_path, "written by a later version")


def test_a_broken_database_in_an_archive_leaves_what_was_there(archive, house, tmp_path):
    def break_it(member, content):
        if member.name == "optuna.db":
            content = content[:5000] + b"\xff" * 5000 + content[10000:]
        if member.name == CHECKSUMS:
            content = json.dumps(json.loads(content) | {"optuna.db": digest}).encode()
        return [(member, content)]

    with tarfile.open(archive) as tar:
        good = tar.extractfile("optuna.db").read()
    digest = hashlib.sha256(good[:5000] + b"\xff" * 5000 + good[10000:]).hexdigest()
    broken = rewritten(archive, tmp_path, break_it)
    before = tree(house.root)
    with pytest.raises(StudyError, match=r"optuna.db in the archive is damaged"):
        restore(house.settings, broken, None, replace=True)
    assert tree(house.root) == before
    assert not list(tmp_path.glob("*.before-*")) and not list(tmp_path.glob(".*.restoring"))


def test_bad_wishes_are_answered_in_a_sentence(house, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VAR_DIR", str(house.root))
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    taken = tmp_path / "taken.tar.gz"
    taken.write_text("mine")
    for arguments, said in {
        ("backup", "--to", str(tmp_path / "kept.zip")): "TO must end in .tar.gz or .tar",
        ("backup", "--to", str(taken)): "exists already",
        ("backup", "--to", str(taken / "below")): "cannot be written to",
        ("restore", ""): "FROM must name an archive",
        ("restore", str(taken), "--into", str(taken)): "is damaged, or no archive",
    }.items():
        assert main(list(arguments)) == 2
        assert said in capsys.readouterr().err
    assert taken.read_text() == "mine"
    with FileLock(house.root / LOCK):
        assert main(["backup"]) == 2
    assert not (house.root / "backups").exists() or not list((house.root / "backups").iterdir())


# Addresses


def test_addresses_move_in_every_text_and_nothing_else_does(tmp_path):
    old, new = Path("/old place/vär"), Path("/new/var")
    before = {
        "file": "file:///old%20place/v%C3%A4r/mlflow/artifacts",
        "path": "/old place/vär",
        "json": json.dumps({"uri": "/old place/vär/synthetic/vae"}),
        "sentence": "see /old place/vär/reports/a.html, and /old place/vär/b",
        "longer": "/old place/vär2/a and /old place/vär.bak and /a/old place/vär",
        "other": "file:///other/var",
    }
    database = tmp_path / "a.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE texts (name TEXT PRIMARY KEY, value)")
        connection.executemany("INSERT INTO texts VALUES (?, ?)", before.items())
        connection.execute("INSERT INTO texts VALUES ('bytes', ?)", (b"/old place/v\xc3\xa4r",))
    assert relocate(database, {old: new}) == 4
    with closing(sqlite3.connect(database)) as connection:
        after = dict(connection.execute("SELECT name, value FROM texts"))
    assert after == before | {
        "file": "file:///new/var/mlflow/artifacts",
        "path": "/new/var",
        "json": '{"uri": "/new/var/synthetic/vae"}',
        "sentence": "see /new/var/reports/a.html, and /new/var/b",
        "bytes": b"/old place/v\xc3\xa4r",
    }


def test_a_folder_moves_below_itself(tmp_path):
    database = tmp_path / "a.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE texts (value TEXT)")
        connection.execute("INSERT INTO texts VALUES ('/a/var/mlflow/artifacts/x and /a/var/y')")
    var, deep = Path("/a/var"), Path("/a/var/deep")
    relocate(database, {var / "mlflow/artifacts": deep / "mlflow/artifacts", var: deep})
    with closing(sqlite3.connect(database)) as connection:
        (said,) = connection.execute("SELECT value FROM texts").fetchone()
    assert said == "/a/var/deep/mlflow/artifacts/x and /a/var/deep/y"


# A real study


@pytest.mark.slow
def test_a_study_goes_on_after_a_backup_a_restore_and_clearing_up(tmp_path, monkeypatch):
    for name in ("OPTUNA_STORAGE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    images = tmp_path / "slices"
    phantom.write(images, n_images=120, n_groups=60)

    def call(root, *arguments):
        monkeypatch.setenv("VAR_DIR", str(root))
        assert main(list(arguments)) == 0

    def search(root, n):
        call(root, "run", "giaem", "--trials", str(n), "--data", str(images))

    def runs(root):
        tracking = Tracking(local_uri(root), local_artifacts(root))
        experiment = tracking.experiments.ids()["giaem (slices)"]
        found = tracking.published_trials(experiment, "giaem (slices)")
        return tracking, {trial: run for trial, (run, _) in found.items()}

    def gone(root):
        tracking, found = runs(root)
        return {n for n, run in found.items() if "cleaned" in tracking.tags(run)}

    first = tmp_path / "first"
    search(first, 3)
    call(first, "backup", "--to", str(tmp_path / "kept.tar.gz"))
    place = tmp_path / "second"
    call(place, "restore", str(tmp_path / "kept.tar.gz"))
    first.rename(tmp_path / "away")
    tracking, found = runs(place)
    for run in found.values():
        load_trial_model(tracking, run)
    call(place, "gc", "--keep", "1", "--dry", "0")
    cleaned = gone(place)
    assert cleaned
    search(place, 1)  # goes on, and publishes nothing anew
    tracking, found = runs(place)
    assert sorted(found) == [0, 1, 2, 3] and gone(place) == cleaned
    load_trial_model(tracking, found[3])
    slice_ = np.asarray(Image.open(next((images / "no").iterdir())))
    model = load_model(local_uri(place), "models:/giaem-slices@candidate")
    assert len(model.predict([slice_])) == 1

    client = MlflowClient(local_uri(place), local_uri(place))
    client.delete_registered_model_alias("giaem-slices", "candidate")
    call(place, "gc", "--keep", "0", "--dry", "0")
    tracking, found = runs(place)
    assert gone(place) == set(found)
    with pytest.raises(TrackingError, match="by `make gc`"):
        load_trial_model(tracking, found[0])
    search(place, 1)  # trains again, and its run holds the weights
    tracking, found = runs(place)
    assert gone(place) == set(range(4))
    load_trial_model(tracking, found[4])
    assert "detector_weights" in tracking.tags(found[4])
