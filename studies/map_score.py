"""Which one number of an error map tells tumours, and how high it must be (map score head).

The score is the mean, the 99th percentile or the maximum of a map's errors. Our choice: the
simplest heads, beside the paper's four.
"""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from models.heads import MapScore
from studies.detection import head_study

STUDY = head_study(
    "map_score",
    MapScore,
    space={
        "statistic": CategoricalDistribution(["mean", "p99", "max"]),
        "threshold": FloatDistribution(0.0, 1.0),
    },
    doc=__doc__,
    first=(  # about what a healthy image has
        {"statistic": "max", "threshold": 0.5},
        {"statistic": "p99", "threshold": 0.5},
        {"statistic": "mean", "threshold": 0.2},
    ),
)
