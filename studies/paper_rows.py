"""The rows of the paper's Table 1: which study each is, what it is trained on, what the paper says.

Also what explains the paper's number: a method without any network on the same kind of split, and
which of the paper's mistakes makes the two alike. Knows no settings, no runs and no results.
"""

from dataclasses import dataclass
from typing import NamedTuple

from studies.settings import DEFAULT_GENERATOR, REAL

# The paper's Table 1 has binary metrics for the CNN and the two classes' means for the CVAE.
BINARY = ("accuracy", "precision", "recall", "f1")
TWO_CLASS = ("accuracy", "macro_precision", "macro_recall", "macro_f1")
COLUMNS = ("accuracy", "precision", "recall", "F1")


class Numbers(NamedTuple):
    """A row of the paper's Table 1, in percent."""

    accuracy: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Source:
    """What training sees; `generator` makes what is not real."""

    title: str
    train_on: str
    generator: str = DEFAULT_GENERATOR

    @property
    def is_real(self) -> bool:
        """Whether no synthetic set is needed."""
        return self.train_on == REAL


@dataclass(frozen=True)
class Model:
    """A row's model: the study that chooses its parameters, and how the paper measures it."""

    title: str
    study: str
    scheme: str
    metrics: tuple[str, ...]  # in the order of COLUMNS


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    model: Model
    source: Source
    paper: Numbers | None = None  # None: the paper has no such row
    floor: str = ""  # the method without a network that explains the paper's number
    why: str = ""  # what both have in common


REAL_IMAGES = Source("real", REAL)
SOURCES = (
    REAL_IMAGES,
    Source("VAE-made", "synthetic", "vae"),
    Source("real + VAE-made", "mixed", "vae"),
    Source("GAN-made", "synthetic", "gan"),
    Source("real + GAN-made", "mixed", "gan"),
)
CNN = Model("CNN", "brain_cnn", "classifier", BINARY)
GIAEM = Model("CVAE + GIAEM", "giaem", "detector", TWO_CLASS)
GLOBAL_KMEANS = Model("CVAE + Global KMeans", "global_kmeans", "detector", TWO_CLASS)
DBSCAN = Model("CVAE + DBSCAN", "dbscan", "detector", TWO_CLASS)
KMEANS = Model("CVAE + KMeans", "image_kmeans", "detector", TWO_CLASS)
MODELS = (CNN, GIAEM, GLOBAL_KMEANS, DBSCAN, KMEANS)

COPIES = (
    "Split at random, nearly every test image has a copy in training. Taking the label of the "
    "nearest training image on pixels needs no network."
)
NEVER_MOVED = (
    "Its optimizer held the weights of another network, so this one never learned; on as many "
    "tumours as healthy images that comes near the 50 % of one answer for all."
)
SAYS_TUMOR = (
    "Never trained either. Half of it right at a recall near 100 %: it calls everything a tumour. "
    "Its mixed split drew its tumour images from the healthy set."
)
NEVER_LEARNED = (
    "The CVAE never learned to reconstruct, since its cross-entropy over one channel is constant. "
    "The GIAEM head on the images themselves, in place of error maps, needs no network."
)
ALL_TUMORS = (
    "Nearly every image called a tumour, where four fifths of the test set are: 80 % right, and "
    "half of everything else."
)

_PAPER = {
    (CNN, "real"): (Numbers(96.67, 95.42, 97.99, 96.69), "nearest_neighbor", COPIES),
    (CNN, "VAE-made"): (Numbers(58.16, 57.53, 56.94, 57.24), "always_tumor", NEVER_MOVED),
    (CNN, "real + VAE-made"): (Numbers(49.97, 49.98, 99.93, 66.64), "always_tumor", SAYS_TUMOR),
    (GIAEM, "real"): (Numbers(60.44, 60.95, 67.11, 56.76), "giaem_on_images", NEVER_LEARNED),
    (GIAEM, "VAE-made"): (Numbers(80.08, 68.26, 66.22, 67.09), "giaem_on_images", NEVER_LEARNED),
    (GIAEM, "real + VAE-made"): (
        Numbers(81.24, 69.99, 64.11, 65.95),
        "giaem_on_images",
        NEVER_LEARNED,
    ),
    (GLOBAL_KMEANS, "real"): (
        Numbers(82.93, 73.55, 67.58, 69.66),
        "giaem_on_images",
        NEVER_LEARNED,
    ),
    (GLOBAL_KMEANS, "VAE-made"): (
        Numbers(79.39, 68.26, 69.44, 68.80),
        "giaem_on_images",
        NEVER_LEARNED,
    ),
    (GLOBAL_KMEANS, "real + VAE-made"): (
        Numbers(78.80, 39.88, 49.27, 44.08),
        "always_tumor",
        ALL_TUMORS,
    ),
}

ROWS = tuple(
    Row(model, source, *_PAPER.get((model, source.title), ()))
    for model in MODELS
    for source in SOURCES
)
