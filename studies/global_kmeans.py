"""How near the border between two clusters of error maps a tumour lies (Global KMeans).

Paper, section 5.2, method 4.
"""

from optuna.distributions import FloatDistribution

from models.heads import GlobalKMeans
from studies.detection import head_study

STUDY = head_study(
    "global_kmeans",
    GlobalKMeans,
    space={
        "anomaly_threshold": FloatDistribution(0.0, 1.0),
        "alpha": FloatDistribution(0.0, 1.0),
    },
    doc=__doc__,
)
