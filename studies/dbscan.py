"""How dense and how large the densest region of an error map must be (DBSCAN head).

Paper, section 5.2, method 2. `min_samples` is searched up to the number of pixels that can lie
within `eps` at all, so that no trial is spent on a pair that can form no cluster.
"""

from optuna.distributions import FloatDistribution, IntDistribution

from models.heads import DBSCANHead
from models.heads.dbscan import max_neighbors
from studies.detection import head_study
from studies.space import Capped

STUDY = head_study(
    "dbscan",
    DBSCANHead,
    space={
        "eps": FloatDistribution(0.0125, 0.05, log=True),
        "min_samples": Capped(
            IntDistribution(5, 200), high=lambda chosen: max_neighbors(chosen["eps"])
        ),
        "tumor_index": FloatDistribution(0.0, 1.0),
    },
    doc=__doc__,
)
