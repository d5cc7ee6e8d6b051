"""How much work `make paper` puts into a row: generators, networks, searches; quick and full.

What is fixed is written into a study's space as a single choice, so that every trial records it.
Knows nothing of rows, seeds or results.
"""

from dataclasses import dataclass, field, replace

from optuna.distributions import CategoricalDistribution, FloatDistribution

from models import gan, vae
from studies.brain_cnn import STUDY as BRAIN_CNN
from studies.space import Params, Space
from studies.study import Study
from training.generator import GeneratorSpec


@dataclass(frozen=True)
class Search:
    """How one study of the table differs from the registered one of its name."""

    n_trials: int
    timeout: float | None = None  # seconds of trials
    fixed: Params = field(default_factory=dict)
    ranges: Space = field(default_factory=dict)  # in place of the registered ones
    first: tuple[Params, ...] = ()  # in place of the registered points, fixed ones left out

    def narrowed(self, study: Study) -> Study:
        """The study with what is fixed as its only choice."""
        single = {name: CategoricalDistribution([value]) for name, value in self.fixed.items()}
        searched = {
            n: one for n, one in ({**study.space, **self.ranges}).items() if n not in single
        }
        points = self.first or study.first
        return replace(
            study,
            space={**single, **searched},
            first=tuple({**point, **self.fixed} for point in points),
        )


@dataclass(frozen=True)
class Effort:
    """What every row of the table is given; `label` sets its studies apart from others."""

    label: str
    n_seeds: int
    n_images: int  # synthetic ones, of each class and generator
    generators: dict[str, Params]
    searches: dict[str, Search]  # by study
    # Seconds of a synthetic set's class by its generator and of a study's trials by its name, where
    # an epoch of the VAE takes `probe` seconds by one training step; other machines are scaled.
    seconds: dict[str, float]
    probe: float

    def generator(self, name: str, seed: int) -> GeneratorSpec:
        """A generator with every hyperparameter written out."""
        return GeneratorSpec(name, self.generators[name], seed).complete()


# Where searches begin: near the best points that longer ones found on validation, on either split;
# the last point calls few images a tumour, so that some trial keeps the specificity.
GIAEM_FIRST = (
    {"anomaly_threshold": 0.14, "tumor_index": 0.23},
    {"anomaly_threshold": 0.11, "tumor_index": 0.31},
    {"anomaly_threshold": 0.24, "tumor_index": 0.11},
    {"anomaly_threshold": 0.4, "tumor_index": 0.3},
)
GLOBAL_KMEANS_FIRST = (
    {"anomaly_threshold": 0.28, "alpha": 0.58},
    {"anomaly_threshold": 0.19, "alpha": 0.42},
    {"anomaly_threshold": 0.3, "alpha": 0.1},
)
DBSCAN_FIRST = (
    {"eps": 0.0134, "min_samples": 5, "tumor_index": 0.44},
    {"eps": 0.0172, "min_samples": 46, "tumor_index": 0.44},
    {"eps": 0.0134, "min_samples": 5, "tumor_index": 0.9},
)
KMEANS_FIRST = tuple({"tumor_index": share} for share in (0.52, 0.54, 0.5, 0.7))
# Generators blur, and a classifier that sees enough learns that: its resolution is chosen too.
# What it has learned from one kind of image may be far too sure of another.
CNN_RANGES = {
    "image_size": CategoricalDistribution([64, 32]),
    "threshold": FloatDistribution(0.02, 0.98),
}
CNN_FIRST = tuple(
    {"image_size": size, "threshold": threshold}
    for threshold in (0.5, 0.3, 0.8, 0.95)
    for size in (64, 32)
)

# Quick: the whole table in less than 25 minutes on two cores. Detectors at 64 px, trained once for
# all heads, classifiers once for each resolution; what is searched is the decision.
QUICK_CNN = {name: BRAIN_CNN.first[0][name] for name in BRAIN_CNN.space if name not in CNN_RANGES}
QUICK_CVAE = {"image_size": 64, "batch_size": 32, "n_epochs": 12}

QUICK = Effort(
    label="paper-quick",
    n_seeds=1,
    n_images=500,
    generators={"vae": vae.GOOD, "gan": gan.QUICK},
    searches={
        "brain_cnn": Search(12, fixed=QUICK_CNN, ranges=CNN_RANGES, first=CNN_FIRST),
        "giaem": Search(20, fixed=QUICK_CVAE, first=GIAEM_FIRST),
        "global_kmeans": Search(15, fixed=QUICK_CVAE, first=GLOBAL_KMEANS_FIRST),
        "dbscan": Search(5, timeout=25.0, fixed=QUICK_CVAE, first=DBSCAN_FIRST),
        "image_kmeans": Search(8, fixed=QUICK_CVAE, first=KMEANS_FIRST),
    },
    seconds={
        "vae": 70.0,
        "gan": 65.0,
        "brain_cnn": 105.0,
        "giaem": 35.0,
        "global_kmeans": 10.0,
        "dbscan": 17.0,
        "image_kmeans": 9.0,
    },
    probe=1.9,
)

# Full: the paper's 1500 images of each class, the detector's own values, and the classifier's
# training searched along with its decision.
FULL = Effort(
    label="paper",
    n_seeds=3,
    n_images=1500,
    generators={"vae": vae.GOOD, "gan": gan.GOOD},
    searches={
        "brain_cnn": Search(
            10,
            fixed={name: QUICK_CNN[name] for name in ("variant", "n_epochs")},
            ranges=CNN_RANGES,
            first=tuple({**QUICK_CNN, **point} for point in CNN_FIRST[:2]),
        ),
        "giaem": Search(60, first=GIAEM_FIRST),
        "global_kmeans": Search(60, first=GLOBAL_KMEANS_FIRST),
        "dbscan": Search(15, timeout=300.0, first=DBSCAN_FIRST),
        "image_kmeans": Search(25, first=KMEANS_FIRST),
    },
    seconds={
        "vae": 90.0,
        "gan": 140.0,
        "brain_cnn": 500.0,
        "giaem": 180.0,
        "global_kmeans": 50.0,
        "dbscan": 120.0,
        "image_kmeans": 25.0,
    },
    probe=2.3,
)
