"""Where the tumour is: error maps and masks beside the published outlines of tumours.

Owns the measures, their intervals and what chance would give. An image counts if its outline tells
a place: it holds pixels within and pixels without. Knows nothing of detectors, heads or files.
"""

from dataclasses import dataclass

import numpy as np

from models.heads.head import mask_areas
from models.heads.kept_maps import check_error_maps

# Our choice. nnDetection (Baumgartner et al. 2021) takes 0.1 between boxes in a volume; in a frame
# of which a tumour fills a twentieth, calling half of it tumour could reach that.
HIT_IOU = 0.25
N_LEVELS = 1024  # of error, for resamples: their AUROC is right to about 1 / 2048
MEASURES = {
    "pixel_auroc": "a tumour pixel has a larger error than another pixel (AUROC over all pixels)",
    "pixel_auprc": "average precision over all pixels",
    "best_dice": "Dice of all pixels at the best threshold that one can choose for all images",
    "pointing_game": "share of images whose largest error lies inside the outline",
    "mask_dice": "Dice of what the head calls tumour, mean over images",
    "mask_hit_rate": "share of images where what the head calls tumour meets the outline: "
    f"intersection over union of at least {HIT_IOU:g}",
}


@dataclass(frozen=True)
class Localization:
    """How well the places agree; every dict is keyed by the names of MEASURES."""

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    chance: dict[str, float]
    n_images: int  # outlined
    n_groups: int  # of near-copies among them


class Outlines:
    """Masks, bool (n, h, w), looked at once: which of them tell a place, and how large it is.

    Of the k that do, `where` are the numbers among all n, `masks` bool (k, h, w) the masks and
    `areas` int64 (k,) their pixels.
    """

    def __init__(self, masks: np.ndarray):
        areas = mask_areas(masks)
        self.shape = masks.shape
        self.where = np.flatnonzero((areas > 0) & (areas < masks.shape[1] * masks.shape[2]))
        self.masks, self.areas = masks[self.where], areas[self.where]

    def __len__(self) -> int:
        """How many tell a place."""
        return len(self.where)


def as_outlines(masks: "np.ndarray | Outlines") -> Outlines:
    """The outlines themselves, or an array's."""
    return masks if isinstance(masks, Outlines) else Outlines(masks)


def localize(
    values: np.ndarray,
    predicted: np.ndarray,
    masks: np.ndarray | Outlines,
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> Localization | None:
    """Error maps `values` and a head's masks `predicted` beside the outlines `masks`.

    All (n, h, w); images without an outline are passed over, None where none has one.
    """
    outlines = as_outlines(masks)
    if not len(outlines):
        return None
    return Localization(
        metrics=score_maps(values, outlines) | score_masks(predicted, outlines),
        intervals=localization_intervals(values, outlines, groups, predicted=predicted, seed=seed),
        chance=chance(outlines),
        n_images=len(outlines),
        n_groups=len(np.unique(np.asarray(groups)[outlines.where])),
    )


def score_maps(values: np.ndarray, masks: np.ndarray | Outlines) -> dict[str, float]:
    """What error maps in [0, 1] know of the place; {} where no image is outlined.

    Exact: every distinct error is a threshold, errors are compared as float32, and the areas are
    scikit-learn's. `best_dice` is the ceiling that Baur et al. (2021) report: the threshold is
    chosen with the outlines in sight. `pointing_game` is Zhang et al.'s (2016) without their
    margin of 15 px; a maximum that is tied counts by the share of the tie that lies inside.
    """
    outlines = as_outlines(masks)
    if not len(outlines):
        return {}
    values, masks = _checked(values, outlines), outlines.masks
    metrics = _exact_areas(values, masks) | {"pointing_game": _maxima_inside(values, masks).mean()}
    return {name: float(value) for name, value in metrics.items()}


def score_masks(predicted: np.ndarray, masks: np.ndarray | Outlines) -> dict[str, float]:
    """What masks know of the place; {} where no image is outlined, 0 for an empty mask."""
    outlines = as_outlines(masks)
    if not len(outlines):
        return {}
    overlaps = _overlaps(predicted, outlines)
    return {name: float(of_image.mean()) for name, of_image in overlaps.items()}


def chance(masks: np.ndarray | Outlines) -> dict[str, float]:
    """What one learns from a constant map, and from a mask of the whole frame."""
    outlines = as_outlines(masks)
    if not len(outlines):
        return {}
    shares = outlines.areas / outlines.masks[0].size
    share = float(shares.mean())
    return {
        "pixel_auroc": 0.5,
        "pixel_auprc": share,
        "best_dice": 2 * share / (1 + share),
        "pointing_game": share,
        "mask_dice": float((2 * shares / (1 + shares)).mean()),
        "mask_hit_rate": float((shares >= HIT_IOU).mean()),
    }


def localization_intervals(
    values: np.ndarray,
    masks: np.ndarray | Outlines,
    groups: np.ndarray,
    *,
    predicted: np.ndarray | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Percentile intervals over resampled groups of near-copies; of masks where they are given.

    Whole groups of outlined images are drawn with replacement and the pixels pooled anew. Here
    errors are read at N_LEVELS levels, which hold about equally many tumour pixels.
    """
    outlines = as_outlines(masks)
    if not len(outlines):
        return {}
    of_image = {} if predicted is None else _overlaps(predicted, outlines)
    values, masks = _checked(values, outlines), outlines.masks
    of_image["pointing_game"] = _maxima_inside(values, masks)
    weights = _group_weights(np.asarray(groups)[outlines.where], n=n, seed=seed)
    resamples = _resampled_areas(weights, values, masks)
    for name, numbers in of_image.items():
        resamples[name] = weights @ numbers / weights.sum(axis=1)
    tail = (1 - level) / 2
    return {
        name: tuple(float(bound) for bound in np.quantile(resamples[name], (tail, 1 - tail)))
        for name in MEASURES
        if name in resamples
    }


def _checked(values: np.ndarray, outlines: Outlines) -> np.ndarray:
    """The outlined images' maps, float32."""
    if values.shape != outlines.shape:
        raise ValueError(
            f"error maps and outlines must have one shape, got {values.shape} and {outlines.shape}."
        )
    return check_error_maps(values[outlines.where]).astype(np.float32, copy=False)


def _maxima_inside(values: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The share of each map's maxima that lies inside the outline, (n,): mostly 0 or 1."""
    maxima = values == values.max(axis=(1, 2), keepdims=True)
    return (maxima & masks).sum(axis=(1, 2)) / maxima.sum(axis=(1, 2))


def _overlaps(predicted: np.ndarray, outlines: Outlines) -> dict[str, np.ndarray]:
    """Dice of each outlined image's mask, and whether it is a hit, (k,) each."""
    if predicted.shape != outlines.shape:
        raise ValueError(
            f"masks and outlines must have one shape, got {predicted.shape} and {outlines.shape}."
        )
    masks = [predicted[image] for image in outlines.where]  # not a copy of megabytes
    both = mask_areas(map(np.logical_and, masks, outlines.masks))
    all_in_all = mask_areas(masks) + outlines.areas
    return {
        "mask_dice": 2 * both / all_in_all,
        "mask_hit_rate": both / (all_in_all - both) >= HIT_IOU,
    }


def _exact_areas(values: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """The pooled pixels' areas. Only errors of tumour pixels matter as thresholds.

    Bits of floats from 0 up sort as the floats do and leave the highest bit free (shifting drops
    the sign of -0.0), so that one sort of integers carries the outline along: background comes
    first among equals.
    """
    keys = (_bits(values) << 1 | masks).ravel()
    keys.sort()
    tumor = np.flatnonzero(keys & 1)
    levels, first, gained = np.unique(keys[tumor], return_index=True, return_counts=True)
    reached = np.searchsorted(keys, levels - 1)  # the first pixel, of either kind, at each level
    tp = len(tumor) - first
    return _areas(
        gained,
        tumor[first] - reached,
        tp=tp,
        fp=len(keys) - reached - tp,
        n_tumor=len(tumor),
        n_background=len(keys) - len(tumor),
    )


def _resampled_areas(weights, values, masks) -> dict[str, np.ndarray]:
    """The same of each row of `weights`, from histograms of each image; level 0 is the highest."""
    tumor, background = (weights @ counts for counts in _histograms(values, masks))
    tp, fp = tumor.cumsum(axis=1), background.cumsum(axis=1)  # (n, N_LEVELS)
    return _areas(tumor, background, tp=tp, fp=fp, n_tumor=tp[:, -1:], n_background=fp[:, -1:])


def _areas(gained, tied, *, tp, fp, n_tumor, n_background) -> dict[str, np.ndarray]:
    """AUROC, average precision and best Dice from counts at levels of error, the last axis.

    `gained` and `tied` are the tumour and background pixels at a level, `tp` and `fp` those at it
    or above.
    """
    share = gained / n_tumor
    below = (n_background - fp + tied / 2) / n_background
    return {
        "pixel_auroc": (share * below).sum(axis=-1),
        "pixel_auprc": (share * tp / np.maximum(tp + fp, 1)).sum(axis=-1),
        "best_dice": (2 * tp / (tp + fp + n_tumor)).max(axis=-1),
    }


def _histograms(values: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tumour and background pixels of each image at each level, float64 (n_images, N_LEVELS).

    Sixteen bits of an error (nine after the leading one) are looked up for its level: the share
    of tumour pixels above it, half of those of its own sixteen bits included.
    """
    codes = (_bits(values) >> 14).astype(np.uint16)
    counts = np.bincount(codes[masks], minlength=2**16)
    above = counts[::-1].cumsum()[::-1] - counts / 2
    level = (above * (N_LEVELS - 1) / counts.sum()).astype(np.int64)
    image = np.arange(len(values))[:, None, None] * N_LEVELS
    places = level[codes] + image
    size = len(values) * N_LEVELS
    tumor = np.bincount(places[masks], minlength=size)
    background = np.bincount(places.ravel(), minlength=size) - tumor
    return tuple(part.reshape(-1, N_LEVELS).astype(float) for part in (tumor, background))


def _bits(values: np.ndarray) -> np.ndarray:
    """float32 of at least 0 as integers in the same order."""
    return values.view(np.uint32)


def _group_weights(groups: np.ndarray, *, n: int, seed: int) -> np.ndarray:
    """How often each image was drawn in each resample of whole groups, (n, n_images)."""
    names, group = np.unique(groups, return_inverse=True)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=n
    )
    return draws[:, group].astype(float)
