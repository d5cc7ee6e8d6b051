"""A study of cheap trials over one small network, run in a process of its own.

`python cheap.py IMAGES TRIALS SECONDS` runs that many, each of which also sleeps; with `begin`
after it others run them, and with `work` it is one of those. The places are those of the
environment, as for every command.
"""

import sys
import time
from dataclasses import replace

from optuna.distributions import FloatDistribution

from studies.__main__ import quiet
from studies.commands.arguments import places
from studies.finish import conclude
from studies.runner import run
from studies.settings import Settings
from studies.study import Study, find_study
from studies.workers.watch import run_with_workers
from studies.workers.work import work

NAME = "cheap"


def cheap_study(seconds: float) -> Study:
    """giaem over a narrow detector that learns for an epoch."""
    giaem = find_study("giaem")

    def fit(params, lab, news):
        time.sleep(seconds)
        return giaem.fit(
            {"anomaly_threshold": params["x"], "latent_dim": 4, "n_epochs": 1}, lab, news
        )

    return Study(
        name=NAME,
        doc="Cheap.",
        space={"x": FloatDistribution(0, 1)},
        fit=fit,
        score=giaem.score,
        conclude=conclude,
    )


def main(images: str, n_trials: str, seconds: str, role: str = "alone") -> bool:
    """Run it, begin it or work for it; False when it was interrupted."""
    study = cheap_study(float(seconds))
    settings = Settings(**places(), data=images, trials=int(n_trials), device="cpu")
    if role == "work":
        return work(study, settings)
    if role == "begin":
        return run(study, replace(settings, engine="elsewhere"), run_with_workers)
    return run(study, settings)


if __name__ == "__main__":
    quiet()
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(0 if main(*sys.argv[1:]) else 130)
