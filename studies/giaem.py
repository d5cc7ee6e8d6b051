"""How large an error counts, and how much of the image must show it (GIAEM head).

Paper, section 5.2, method 1: global image absolute error magnitude.
"""

from optuna.distributions import FloatDistribution

from models.heads import GIAEM
from studies.detection import head_study

STUDY = head_study(
    "giaem",
    GIAEM,
    space={
        "anomaly_threshold": FloatDistribution(0.0, 1.0),
        "tumor_index": FloatDistribution(0.0, 1.0),
    },
    doc=__doc__,
    # A few pixels beyond a healthy image's largest error; a tenth of a map scaled by itself.
    first=(
        {"anomaly_threshold": 0.5, "tumor_index": 0.01},
        {"anomaly_threshold": 0.3, "tumor_index": 0.1},
    ),
)
