"""How much of one image its cluster of larger errors must hold (per-image KMeans).

Paper, section 5.2, method 3.
"""

from optuna.distributions import FloatDistribution

from models.heads import ImageKMeans
from studies.detection import head_study

STUDY = head_study(
    "image_kmeans",
    ImageKMeans,
    space={"tumor_index": FloatDistribution(0.0, 1.0)},
    doc=__doc__,
)
