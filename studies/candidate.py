"""What is kept of a trial's detector and head: a predictor, pictures, and its answers on test.

It turns a Candidate into files and pictures; when that happens, the runner decides.
"""

import numpy as np
from PIL import Image

from studies.study import Candidate, Lab
from training.error_maps import ErrorMaps
from training.floors import Scored, evaluate_scored
from training.grids import choose_examples, sample_grid
from training.predictor import Predictor

N_EXAMPLES = 16


def as_predictor(candidate: Candidate, lab: Lab) -> Predictor:
    """Pre-processing, network and head in one."""
    detector = candidate.detector
    return Predictor(
        lab.dataset.preprocess, detector.spec, detector.mapper, candidate.head, lab.device
    )


def answer(name: str, candidate: Candidate, maps: ErrorMaps) -> Scored:
    """What the candidate says of these maps, and what that is worth."""
    return evaluate_scored(name, maps.labels, maps.groups, *candidate.answer(maps))


def example_grid(candidate: Candidate, lab: Lab, indices: np.ndarray, maps: ErrorMaps) -> Image:
    """Sixteen images of a split with reconstruction, error map and what the head calls tumour."""
    scores, predicted = candidate.answer(maps)
    chosen = choose_examples(maps.labels, scores, n=N_EXAMPLES, seed=lab.seed)
    values = maps.values[chosen]
    return sample_grid(
        lab.dataset.images[indices[chosen]],
        candidate.detector.reconstructions(indices[chosen]),
        values,
        candidate.head.mask(values),
        maps.labels[chosen],
        predicted[chosen],
        scores=scores[chosen],
        outlines=lab.dataset.masks[indices[chosen]],
    )
