"""A study of cheap trials over one small network, run in a process of its own.

`python cheap.py IMAGES TRIALS SECONDS` runs that many, each of which also sleeps; the places are
those of the environment, as for every command.
"""

import sys
import time

from optuna.distributions import FloatDistribution

from studies.__main__ import quiet
from studies.commands.arguments import places
from studies.finish import conclude
from studies.runner import run
from studies.settings import Settings
from studies.study import Study, find_study

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


if __name__ == "__main__":
    images, n_trials, seconds = sys.argv[1:]
    quiet()
    settings = Settings(**places(), data=images, trials=int(n_trials), device="cpu")
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(0 if run(cheap_study(float(seconds)), settings) else 130)
