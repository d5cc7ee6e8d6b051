"""Grey values made comparable between scanners, before a network sees them.

Owns the two rules: z-scores of the tissue, and histogram matching to the healthy training images.
Knows nothing of networks. Images are uint8 (n, h, w) and stay it; background stays 0.
"""

import numpy as np

BACKGROUND = 15  # grey values up to here are no tissue: as models.error_mapper.FOREGROUND
LEVELS = np.arange(256)
ZSCORE_MEAN, ZSCORE_SD = 110, 45  # of tissue; our choice: 2 sd below is not yet background


def learn_template(images: np.ndarray) -> np.ndarray:
    """The mean quantile function of the images' tissue: float32 (256,), rising."""
    shares = np.linspace(0, 1, 256)
    quantiles = [np.quantile(tissue, shares) for image in images if (tissue := _tissue(image)).size]
    if not quantiles:
        return LEVELS.astype(np.float32)
    return np.mean(quantiles, axis=0).astype(np.float32)


def standardize(images: np.ndarray, rule: str, template: np.ndarray) -> np.ndarray:
    """Images with grey values by the rule: "none", "zscore" or "histogram" (to the template).

    Histogram matching: Nyul and Udupa 1999, here with every quantile for a landmark.
    """
    if rule == "none":
        return images
    table_of = _zscore_table if rule == "zscore" else _matching_table
    return np.stack([table_of(_tissue(image), template)[image] for image in images])


def _tissue(image: np.ndarray) -> np.ndarray:
    return image[image > BACKGROUND]


def _zscore_table(tissue: np.ndarray, template: np.ndarray) -> np.ndarray:
    """What each grey value becomes when the tissue's mean and deviation become fixed ones."""
    if not tissue.size:
        return LEVELS.astype(np.uint8)
    z = (LEVELS - tissue.mean()) / max(tissue.std(), 1.0)
    return _as_table(ZSCORE_MEAN + ZSCORE_SD * z)


def _matching_table(tissue: np.ndarray, template: np.ndarray) -> np.ndarray:
    """What each grey value becomes when the tissue's quantiles become the template's."""
    if not tissue.size:
        return LEVELS.astype(np.uint8)
    counts = np.bincount(tissue, minlength=256)
    ranks = (np.cumsum(counts) - counts / 2) / tissue.size
    return _as_table(np.interp(ranks, np.linspace(0, 1, len(template)), template))


def _as_table(values: np.ndarray) -> np.ndarray:
    table = np.clip(np.rint(values), BACKGROUND + 1, 255).astype(np.uint8)
    table[: BACKGROUND + 1] = LEVELS[: BACKGROUND + 1]
    return table
