"""`make gc`: what must stay stays whatever links to it, and all else goes without a trace."""

import json
import os
import random
import socket
import time
from contextlib import contextmanager, suppress

import optuna
import pytest
from filelock import FileLock
from house import House, fill, make_template
from mlflow.entities import LoggedModelStatus

from mlflow_server import TrackingError, local_artifacts, local_uri
from mlflow_server.process import server_process
from mlflow_server.server import _born, _command, _settings
from mlflow_server.team import without_login
from mlflow_server.tracking import CLEANED_TAG
from mlflow_server.upkeep import Upkeep
from studies.__main__ import main
from studies.opening import model_format
from studies.record import REPORTED, Record
from studies.study import StudyError
from studies.trial_model import load_trial_model
from studies.upkeep.gc import LOCK, carry_out, collect, make_plan
from studies.worker import WORKER, this_worker
from training.cache import Cache, make_key
from training.kept_fit import WEIGHTS


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def house(tmp_path, template):
    return House(tmp_path / "var", template)


def clear(house, keep, dry=False):
    collect(house.settings, keep=keep, dry=dry)


# What stays


def test_the_best_trials_keep_their_files_and_feasible_ones_come_first(house):
    study = house.study("giaem")
    runs = [house.trial(study, value, feasible=value < 0.9) for value in (0.2, 0.8, 0.95, 0.5)]
    clear(house, keep=3)
    assert [house.is_cleaned(run) for run in runs] == [False, False, True, False]


def test_a_study_that_minimizes_keeps_its_lowest(house):
    study = house.study("vae", direction="minimize")
    runs = [house.trial(study, value, network=str(value)) for value in (3.0, 1.0, 2.0)]
    clear(house, keep=1)
    assert [house.is_cleaned(run) for run in runs] == [True, False, True]


def test_a_cleaned_run_keeps_its_numbers_and_its_parent_its_report(house):
    study = house.study("giaem")
    runs = [house.trial(study, value) for value in (0.1, 0.2)]
    before = [house.numbers(run) for run in runs]
    clear(house, keep=0)
    assert all(house.is_cleaned(run) for run in runs)
    assert [house.numbers(run) for run in runs] == before
    experiment = house.tracking.experiments.ids()["giaem"]
    assert house.files(house.tracking.find_study(experiment, "giaem")) == {"report.html"}


def test_a_run_that_holds_the_weights_of_a_kept_trial_stays(house):
    study = house.study("giaem")
    worst, best = house.trial(study, 0.1), house.trial(study, 0.9)
    model = house.model(worst)
    clear(house, keep=1)
    assert house.has_weights(best)
    assert house.files(worst) == {
        "head/predictor.json",
        "samples.png",
        "detector/weights.safetensors",
        "detector/training.json",
        "detector/checksums.json",
    }
    assert model not in house.models()


def test_an_alias_keeps_its_model_its_run_and_the_weights_of_another_study(house):
    held, linked = house.study("brain_cvae"), house.study("giaem")
    holder = house.trial(held, 0.1)
    runs = [house.trial(linked, value) for value in (0.1, 0.9)]
    model = house.model(runs[0])
    house.version(model, "giaem", "mine")
    clear(house, keep=0)
    assert house.answers("models:/giaem@mine", model)
    assert house.has_weights(runs[0]) and not house.is_cleaned(holder)
    assert house.is_cleaned(runs[1])


def test_an_alias_on_an_old_version_keeps_that_version_alone(house):
    study = house.study("giaem")
    models = [house.model(house.trial(study, value)) for value in (0.1, 0.2, 0.3)]
    house.version(models[0], "giaem", "champion", "first")
    house.version(models[1], "giaem")
    house.version(models[2], "giaem", "candidate")
    clear(house, keep=0)
    assert house.answers("models:/giaem@champion", models[0])
    assert house.answers("models:/giaem@first", models[0])
    assert house.answers("models:/giaem@candidate", models[2])
    versions = house.client.search_model_versions("name = 'giaem'")
    assert sorted(int(one.version) for one in versions) == [1, 3]
    assert house.models() == {models[0], models[2]}


def test_past_champions_stay_for_a_rollback(house):
    study = house.study("giaem")
    models = [house.model(house.trial(study, value)) for value in (0.1, 0.2)]
    house.version(models[0], "tumor-detector")
    house.version(models[1], "tumor-detector", "champion")
    clear(house, keep=0)
    assert house.answers("models:/tumor-detector/1", models[0])
    assert house.answers("models:/tumor-detector@champion", models[1])


def test_the_champion_of_a_deleted_experiment_stays_and_its_other_trials_go(house):
    study, other = house.study("giaem"), house.study("dbscan")
    holder, run = house.trial(study, 0.1), house.trial(study, 0.9)
    elsewhere = house.trial(other, 0.5)
    model = house.model(run)
    house.version(model, "tumor-detector", "champion")
    rest = house.trial(study, 0.8)
    house.client.delete_experiment(house.tracking.experiments.ids()["giaem"])
    clear(house, keep=5)
    assert house.answers("models:/tumor-detector@champion", model)
    assert house.has_weights(run) and house.has_weights(elsewhere)
    assert house.files(holder)
    assert house.is_cleaned(rest)
    assert house.client.get_run(rest).info.lifecycle_stage == "deleted"


def test_what_is_no_study_is_never_touched(house):
    study = house.study("giaem")
    run = house.trial(study, 0.5)
    for name in ("evidence", "promotions"):
        experiment = house.tracking.experiments.open(name, note="", tags={})
        other = house.tracking.open_study(
            experiment, "giaem", params={}, tags={"detector_run": run}, datasets=[]
        )
        house.tracking.log_artifacts(other, house.root / "studies" / "giaem" / "evidence")
        house.tracking.close_study(other, status="FINISHED", metrics={}, tags={}, note="")
        model = house.model(other)
        clear(house, keep=0)
        assert house.files(other) == {"report.html"} and model in house.models()
        assert house.has_weights(run)


def test_a_study_whose_trials_are_in_another_storage_is_left_alone(house, capsys):
    run = house.trial(house.study("giaem"), 0.5)
    optuna.delete_study(study_name="giaem", storage=house.storage)
    clear(house, keep=0)
    assert not house.is_cleaned(run)
    assert "not in this OPTUNA_STORAGE: giaem" in capsys.readouterr().out


def test_the_generator_of_a_synthetic_set_stays(house):
    study = house.study("vae")
    run, other = house.trial(study, 0.1), house.trial(study, 0.2, network="b")
    model = house.model(run)
    house.version(model, "vae")
    manifest = house.root / "synthetic" / "vae" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    origin = {"source": f"the values of models:/vae@candidate, run {run}"}
    manifest.write_text(json.dumps({"origin": origin, "files": {}}))
    clear(house, keep=0)
    assert house.answers("models:/vae/1", model) and not house.is_cleaned(run)
    assert house.is_cleaned(other)
    manifest.write_text("{")
    with pytest.raises(StudyError, match=r"manifest.json cannot be read.*`make generate`"):
        clear(house, keep=0)


# What runs


def test_a_study_that_runs_is_left_alone_and_so_are_all_weights(house, capsys):
    running, quiet = house.study("giaem"), house.study("dbscan")
    runs = [house.trial(running, value) for value in (0.1, 0.2)]
    holder, linked = (house.trial(quiet, value, network="b") for value in (0.1, 0.2))
    running.ask().set_user_attr(WORKER, this_worker())
    clear(house, keep=0)
    assert not any(house.is_cleaned(run) for run in runs)
    assert not house.is_cleaned(holder) and house.is_cleaned(linked)
    assert (house.root / "cache" / make_key(network="b")).exists()
    assert "Left alone, because they run or were killed: giaem" in capsys.readouterr().out


def test_a_parent_run_that_is_running_says_that_its_study_runs(house):
    study = house.study("giaem")
    run = house.trial(study, 0.1)
    experiment = house.tracking.experiments.ids()["giaem"]
    house.tracking.open_study(experiment, "giaem", params={}, tags={}, datasets=[])
    clear(house, keep=0)
    assert not house.is_cleaned(run)


def test_a_trial_that_links_while_its_holder_is_cleaned_keeps_it_or_holds_the_weights(house):
    study = house.study("giaem")
    holder = house.trial(study, 0.1)
    upkeep = Upkeep(house.uri)
    plan = make_plan(upkeep, house.settings, keep=0)
    linked = house.trial(study, 0.2)  # after the plan was made
    carry_out(upkeep, plan, house.root)
    assert not house.is_cleaned(holder) and house.has_weights(linked)

    record = record_of(house, "giaem")
    record._weights[make_key(network="a")] = holder  # it has linked to it before
    clear(house, keep=0)
    assert house.is_cleaned(holder)
    Cache(house.root / "cache").get_or_make(
        make_key(network="a"), lambda entry: fill(entry, make_key(network="a"))
    )
    trial = study.ask()
    trial.set_user_attr(REPORTED, {"weights": {"detector": make_key(network="a")}})
    record.write([study.tell(trial, 0.3)])
    assert house.has_weights(record.published[trial.number])


def test_a_model_that_is_promoted_while_its_end_is_planned_stays_whole(house):
    study = house.study("giaem")
    holder, run = house.trial(study, 0.1), house.trial(study, 0.2)
    model = house.model(run)
    house.version(model, "giaem")
    upkeep = Upkeep(house.uri)
    plan = make_plan(upkeep, house.settings, keep=0)
    house.version(model, "tumor-detector", "champion")
    carry_out(upkeep, plan, house.root)
    assert house.answers("models:/tumor-detector@champion", model)
    assert house.has_weights(run) and not house.is_cleaned(holder)


def record_of(house, name) -> Record:
    experiment = house.tracking.experiments.ids()[name]
    return Record(
        tracking=house.tracking,
        study=name,
        experiment_id=experiment,
        parent_id=house.tracking.find_study(experiment, name),
        trials_folder=house.root / "studies" / name / "trials",
        weights_folder=house.root / "cache",
        model_format=model_format("detector"),
    )


def test_weights_that_were_cleaned_are_placed_again_by_the_next_trial(house):
    study = house.study("giaem")
    first = house.trial(study, 0.1)
    clear(house, keep=0)
    second, third = house.trial(study, 0.2), house.trial(study, 0.3)
    assert house.is_cleaned(first)
    assert house.has_weights(second) and house.has_weights(third)
    assert house.tracking.tags(third)["detector_run"] == second


# What goes


def test_a_removed_model_leaves_neither_record_nor_files_nor_version(house):
    study = house.study("giaem")
    model = house.model(house.trial(study, 0.1))
    house.version(model, "giaem")
    folder = house.root / "mlflow" / "artifacts" / "giaem" / "models"
    assert list(folder.iterdir())
    clear(house, keep=0)
    assert not list(folder.iterdir())
    assert house.models() == set()
    assert not list(house.client.search_model_versions("name = 'giaem'"))


def test_failed_models_go_and_one_that_is_being_logged_stays(house):
    study = house.study("giaem")
    run = house.trial(study, 0.1)
    experiment = house.tracking.experiments.ids()["giaem"]
    failed, pending = (
        house.client.create_logged_model(experiment, name="model", source_run_id=run)
        for _ in range(2)
    )
    house.client.log_model_artifacts(failed.model_id, str(house.template / "limit"))
    house.client.finalize_logged_model(failed.model_id, LoggedModelStatus.FAILED)
    clear(house, keep=1)
    assert house.models() == {f"models:/{pending.model_id}"}


def test_what_was_removed_by_mlflow_leaves_no_files_and_strangers_stay(house, capsys):
    study = house.study("giaem")
    run = house.trial(study, 0.1)
    model = house.model(run).removeprefix("models:/")
    store = house.client._tracking_client.store
    store.delete_logged_model(model)
    store._hard_delete_logged_model(model)  # as `mlflow gc` does, without its files
    folder = house.root / "mlflow" / "artifacts" / "giaem" / "models"
    stranger = folder / f"m-{make_key(of='another database')}"
    stranger.mkdir()
    (stranger / "weights").write_text("needed there")
    clear(house, keep=1)
    assert list(folder.iterdir()) == [stranger]
    assert "1 folders (12 B) that this record has never heard of" in capsys.readouterr().out


def test_trials_folders_that_were_published_go_and_those_that_were_not_stay(house):
    study = house.study("giaem")
    house.trial(study, 0.1)
    trials = house.root / "studies" / "giaem" / "trials"
    for number in (0, 1):
        (trials / str(number)).mkdir(parents=True)
    clear(house, keep=1)
    assert [path.name for path in trials.iterdir()] == ["1"]


def test_weights_that_two_runs_hold_are_held_by_one_and_linked_to_by_the_other(house):
    study = house.study("giaem")
    first, linked = house.trial(study, 0.1), house.trial(study, 0.2)
    second = house.trial(study, 0.3)
    weights = house.folder(first) / "detector"
    house.tracking.log_artifacts(second, weights, "detector")  # as by a worker beside
    house.client.set_tag(second, "detector_weights", make_key(network="a"))
    house.client.delete_tag(second, "detector_run")
    clear(house, keep=3)
    held = [run for run in (first, second) if any("detector/" in f for f in house.files(run))]
    assert held == [first]
    assert all(house.has_weights(run) for run in (first, linked, second))
    assert "detector_weights" not in house.tracking.tags(second)


def test_other_weights_under_the_same_key_are_not_taken_for_the_same(house):
    study = house.study("giaem")
    first, second = house.trial(study, 0.1), house.trial(study, 0.2)
    house.tracking.log_artifacts(second, house.folder(first) / "detector", "detector")
    (house.folder(second) / "detector" / WEIGHTS).write_text("of another machine")
    house.client.set_tag(second, "detector_weights", make_key(network="a"))
    house.client.delete_tag(second, "detector_run")
    clear(house, keep=2)
    assert (house.folder(second) / "detector" / WEIGHTS).exists()


def test_the_cache_loses_what_cleaned_trials_stand_on_and_what_nobody_has_asked_for(house):
    study = house.study("giaem")
    house.trial(study, 0.1, network="worse"), house.trial(study, 0.9, network="better")
    cache = Cache(house.root / "cache")
    asked, unasked, small = (make_key(of=name) for name in ("asked", "unasked", "small"))
    for key in (asked, unasked):
        cache.get_or_make(key, lambda entry: (entry / "features").write_bytes(bytes(2 << 20)))
    cache.get_or_make(small, lambda entry: (entry / "floors.csv").write_text("1"))
    long_ago = time.time() - 31 * 24 * 60 * 60
    for key in (unasked, small):
        os.utime(house.root / "cache" / key, (long_ago, long_ago))
    clear(house, keep=1)
    left = {path.name for path in (house.root / "cache").iterdir() if path.is_dir()}
    assert left == {make_key(network="better"), asked, small}


def test_an_entry_that_a_living_process_makes_stays(house):
    study = house.study("giaem")
    house.trial(study, 0.1)
    entry = house.root / "cache" / make_key(network="a")
    with FileLock(f"{entry}.lock"):
        clear(house, keep=0)
    assert entry.exists()
    clear(house, keep=0)
    assert not entry.exists()


# However it is called


def test_the_first_call_only_looks_and_an_explicit_wish_wins(house, monkeypatch, capsys):
    monkeypatch.setenv("VAR_DIR", str(house.root))
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    study = house.study("giaem")
    first = house.trial(study, 0.1, network="a")
    assert main(["gc", "--keep", "0"]) == 0
    assert "Run it again, or with DRY=0, to delete." in capsys.readouterr().out
    assert not house.is_cleaned(first)
    assert main(["gc", "--keep", "0", "--dry", "1"]) == 0
    assert not house.is_cleaned(first)
    assert main(["gc", "--keep", "0"]) == 0
    assert house.is_cleaned(first)
    (house.root / ".gc").unlink()
    second = house.trial(study, 0.2, network="b")
    assert main(["gc", "--keep", "0", "--dry", "0"]) == 0
    assert house.is_cleaned(second)


def test_a_dry_run_says_the_bytes_that_the_wet_one_frees(house, capsys):
    study = house.study("giaem")
    for value in (0.1, 0.2):
        house.model(house.trial(study, value))
    clear(house, keep=1, dry=True)
    said = capsys.readouterr().out
    clear(house, keep=1)
    assert capsys.readouterr().out.splitlines()[:9] == said.splitlines()[:9]
    clear(house, keep=1, dry=True)
    before, after = (
        next(line.split("|") for line in text.splitlines() if line.startswith("| **all**"))
        for text in (said, capsys.readouterr().out)
    )
    assert after[3].strip() == "0 B" and before[3].strip() != "0 B"


def test_two_at_a_time_and_a_wrong_folder_are_refused(house, tmp_path, monkeypatch, capsys):
    with (
        FileLock(house.root / LOCK),
        pytest.raises(StudyError, match=r"Another `make gc`.*wait for its end"),
    ):
        clear(house, keep=1)
    monkeypatch.setenv("VAR_DIR", str(tmp_path / "none"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["gc"]) == 2
    assert "There are no studies below" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_cleaned_run_says_so_where_its_model_is_asked_for(house):
    study = house.study("giaem")
    run = house.trial(study, 0.1)
    clear(house, keep=0)
    with pytest.raises(TrackingError, match=r"were removed on \d{4}-\d\d-\d\d by `make gc`"):
        load_trial_model(house.tracking, run)


# At random, and interrupted


class InterruptedUpkeep(Upkeep):
    """Ctrl-C comes after so many folders of files were removed."""

    left = 0

    def _remove_files(self, folder, identity):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super()._remove_files(folder, identity)


def furnish(house, rng):
    """Studies whose trials share networks, with models, aliases, and things deleted."""
    studies = [house.study(name) for name in ("giaem", "dbscan", "vae")]
    trials = {}  # run -> network
    for _ in range(12):
        network = rng.choice("abcd")
        run = house.trial(
            rng.choice(studies), rng.random(), network=network, feasible=rng.random() < 0.7
        )
        trials[run] = network
    models = {house.model(run): run for run in rng.sample(list(trials), 6)}
    aliases = {}  # address -> model
    for model in rng.sample(list(models), 4):
        name = rng.choice(["giaem", "dbscan", "tumor-detector"])
        chosen = rng.sample(["candidate", "champion", "mine"], rng.randrange(3))
        house.version(model, name, *chosen)
        aliases |= {f"models:/{name}@{alias}": model for alias in chosen}
    house.client.delete_run(rng.choice(list(trials)))
    if rng.random() < 0.5:
        house.client.delete_experiment(house.tracking.experiments.ids()["dbscan"])
    return trials, models, aliases


def check(house, trials, models, aliases):
    """What must hold after any call, whole or interrupted."""
    for address, model in aliases.items():
        assert house.answers(address, model), address
        assert house.has_weights(models[model], trials[models[model]]), address
    for run, network in trials.items():
        assert house.numbers(run)[0]
        if CLEANED_TAG not in house.tracking.tags(run):
            assert "head/predictor.json" in house.files(run)
            assert house.has_weights(run, network), run
    for model in house.models():
        if house.client.get_logged_model(model.removeprefix("models:/")).status == "READY":
            assert house.answers(model, model), model
    known = {house.client.get_logged_model(one.split("/")[1]) for one in house.models()}
    locations = {one.artifact_location for one in known}
    assert all(one.source in locations for one in house.client.search_model_versions())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_however_studies_are_linked_what_stays_is_whole_at_every_moment(house, seed):
    rng = random.Random(seed)
    trials, models, aliases = furnish(house, rng)
    keep = rng.randrange(3)
    for removals in (1, 3):
        upkeep = InterruptedUpkeep(house.uri)
        upkeep.left = removals
        with suppress(KeyboardInterrupt):
            carry_out(upkeep, make_plan(upkeep, house.settings, keep), house.root)
        check(house, trials, models, aliases)
    clear(house, keep)
    check(house, trials, models, aliases)
    again = make_plan(Upkeep(house.uri), house.settings, keep)
    assert not (again.runs or again.models or again.cache or again.needs.versions_to_remove)


@contextmanager
def server(root):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    door = without_login("127.0.0.1", port)
    base, log = door.base, root / "server.log"
    command, settings = _command(local_artifacts(root), door), _settings(local_uri(root), door)
    with server_process(command, "The server", log, settings=settings) as started:
        started.wait_until_ready(lambda: _born(base) is not None)
        yield base


@pytest.mark.slow
def test_over_a_server_the_same_goes_and_the_same_stays(tmp_path, template):
    root = tmp_path / "var"
    House(root, template)
    with server(root) as uri:
        house = House(root, template, tracking_uri=uri)
        study = house.study("giaem")
        runs = [house.trial(study, value) for value in (0.1, 0.2, 0.9)]
        models = [house.model(run) for run in runs]
        house.version(models[0], "giaem", "candidate")
        house.version(models[1], "giaem")
        clear(house, keep=1)
        assert house.answers("models:/giaem@candidate", models[0])
        assert house.models() == {models[0], models[2]}
        listed = [[one.path for one in house.client.list_artifacts(run)] for run in runs]
        assert listed == [["detector", "head", "samples.png"], [], ["head", "samples.png"]]
        assert CLEANED_TAG in house.tracking.tags(runs[1])
