"""The heads: scikit-learn classifiers that turn error maps into tumour (1) or not (0).

Each knows error maps alone: nothing of images, networks or studies. A new head is one file and
one line here.
"""

from models.heads.dbscan import DBSCANHead
from models.heads.giaem import GIAEM
from models.heads.global_kmeans import GlobalKMeans
from models.heads.head import Head
from models.heads.image_kmeans import ImageKMeans
from models.heads.kept_maps import KeptMaps
from models.heads.map_score import MapScore

HEADS: dict[str, type[Head]] = {
    "giaem": GIAEM,
    "dbscan": DBSCANHead,
    "image_kmeans": ImageKMeans,
    "global_kmeans": GlobalKMeans,
    "map_score": MapScore,
}

__all__ = [
    "GIAEM",
    "HEADS",
    "DBSCANHead",
    "GlobalKMeans",
    "Head",
    "ImageKMeans",
    "KeptMaps",
    "MapScore",
]
