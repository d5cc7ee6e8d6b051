"""A procedural stand-in for Br35H, for tests and for a first try without a network.

Writes a folder laid out as Br35H's: `yes/`, `no/` and the lesions' outlines. Slices differ in
contrast, anatomy, size and field of view; each has flipped, rotated, sharpened, contrast-changed or
re-encoded copies. Numbers reached on it say nothing about patients. Knows nothing of Dataset.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

CANVAS = 256  # the head is drawn on this many pixels, then scanned into a field of view of its own
RADIUS = 120  # of the head's longer half axis on the canvas, pixels
# Brightness of (CSF, gray matter, white matter, skull, scalp) in T1, T2, FLAIR and PD weighting.
CSF, GRAY, WHITE, SKULL, SCALP = range(5)
CONTRASTS = np.array(
    [
        [0.15, 0.45, 0.68, 0.10, 0.85],
        [0.90, 0.55, 0.38, 0.08, 0.60],
        [0.12, 0.55, 0.45, 0.10, 0.65],
        [0.50, 0.70, 0.55, 0.12, 0.50],
    ]
)
FLIPS = (None, 1, 0, -1)  # cv2.flip codes: identity, left-right, up-down, rotated by 180 degrees


class Slice(NamedTuple):
    """A drawn slice and the outlines of its lesions."""

    image: np.ndarray  # uint8 (h, w)
    outlines: list[np.ndarray]  # each (k, 2), x and y in pixels


class Head(NamedTuple):
    """The head's own coordinates on the canvas, each (256, 256) and 1 at the head's edge."""

    u: np.ndarray  # left to right
    v: np.ndarray  # front to back
    r: np.ndarray  # distance from the middle
    radii: np.ndarray  # (2,) pixels of the canvas per unit of u and v


def write(folder: Path, *, n_images: int = 600, n_groups: int = 200, seed: int = 0) -> None:
    """Write `n_images` slices in `n_groups` groups of copies, half of both with lesions."""
    annotations = {}
    for label, name in enumerate(("no", "yes")):
        (folder / name).mkdir(parents=True)
        rng = np.random.default_rng([seed, label])
        for number, drawn in enumerate(_slices(n_images // 2, n_groups // 2, bool(label), rng)):
            file = f"{name[0]}{number}.jpg"
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(75, 96))]
            encoded = cv2.imencode(".jpg", drawn.image, quality)[1]
            (folder / name / file).write_bytes(encoded.tobytes())
            if drawn.outlines:
                annotations[file] = {"filename": file, "regions": _regions(drawn.outlines)}
    outlines_file = folder / "Br35H-Mask-RCNN" / "annotations_all.json"
    outlines_file.parent.mkdir()
    outlines_file.write_text(json.dumps(annotations))


def _slices(n: int, n_groups: int, lesion: bool, rng: np.random.Generator) -> Iterator[Slice]:
    """Originals, each followed by its copies; most groups are small, a few large, as in Br35H."""
    weights = rng.pareto(2.5, n_groups) + 0.2
    for n_copies in rng.multinomial(n - n_groups, weights / weights.sum()):
        original = draw(rng, lesion=lesion)
        yield original
        for _ in range(n_copies):
            yield near_copy(original, rng)


def draw(rng: np.random.Generator, *, lesion: bool) -> Slice:
    """Draw one slice in a field of view of its own."""
    head = _head(rng)
    slice_ = Slice(_anatomy(head, rng), [])
    if lesion:
        for _ in range(1 + (rng.random() < 0.2)):
            slice_ = _add_lesion(slice_, head, rng)
    return _scan(slice_, rng)


def near_copy(original: Slice, rng: np.random.Generator) -> Slice:
    """The slice flipped or rotated by 180 degrees, perhaps sharpened or with another contrast."""
    image, outlines = original
    flip = FLIPS[rng.integers(len(FLIPS))]
    if flip is not None:
        image, far = cv2.flip(image, flip), np.array(image.shape[::-1]) - 1
        mirrored = np.array([flip != 0, flip != 1])  # x, y
        outlines = [np.where(mirrored, far - outline, outline) for outline in outlines]
    change = rng.integers(3)
    if change == 1:
        image = cv2.addWeighted(image, 1.8, cv2.GaussianBlur(image, (0, 0), 1.5), -0.8, 0)
    if change == 2:
        image = cv2.convertScaleAbs(image, alpha=rng.uniform(0.7, 1.2))
    return Slice(image, outlines)


def _head(rng: np.random.Generator) -> Head:
    radii = RADIUS * np.array([rng.uniform(0.68, 0.88), rng.uniform(0.9, 1.0)])
    angle = rng.normal(0, 0.1)
    y, x = np.mgrid[:CANVAS, :CANVAS] - (CANVAS - 1) / 2
    u = (x * np.cos(angle) + y * np.sin(angle)) / radii[0]
    v = (y * np.cos(angle) - x * np.sin(angle)) / radii[1]
    return Head(u, v, np.hypot(u, v) * (1 + 0.02 * _smooth_noise(rng, 40)), radii)


def _anatomy(head: Head, rng: np.random.Generator) -> np.ndarray:
    """Skull, folded gray matter, white matter, ventricles and nuclei: float32 in about [0, 1]."""
    u, v, r, _ = head
    folds, sulci = _smooth_noise(rng, rng.uniform(4, 7)), _smooth_noise(rng, rng.uniform(3, 5))
    tissue = np.full(r.shape, SCALP)
    tissue[r < rng.uniform(0.90, 0.96)] = SKULL
    brain = r < rng.uniform(0.82, 0.88)
    tissue[brain] = GRAY
    tissue[brain & (sulci > 1.3) & (r > 0.55)] = CSF
    tissue[r + 0.06 * folds < rng.uniform(0.6, 0.75)] = WHITE
    tissue[brain & (np.abs(u) < 0.015) & (np.abs(v) > 0.35)] = CSF  # the fissure
    level, size = rng.uniform(-0.15, 0.15), rng.uniform(0.5, 1.3)
    for side in (-1, 1):
        across = side * u - 0.07 - 0.12 * np.abs(v - level)
        tissue[np.hypot(across / (0.07 * size), (v - level) / (0.32 * size)) < 1] = CSF
        nucleus = np.hypot((side * u - 0.27) / 0.09, (v - level - 0.05) / 0.16)
        tissue[nucleus < rng.uniform(0.5, 1.1)] = GRAY
    brightness = CONTRASTS[rng.integers(len(CONTRASTS))] * rng.uniform(0.8, 1.2, 5)
    image = brightness[tissue] * (1 + 0.05 * _smooth_noise(rng, 2))
    image *= 1 + 0.12 * _smooth_noise(rng, 60)  # the coil's uneven sensitivity
    return cv2.GaussianBlur(np.where(r < 1, image, 0).astype(np.float32), (0, 0), 1.0)


def _add_lesion(slice_: Slice, head: Head, rng: np.random.Generator) -> Slice:
    """One irregular lesion in the brain, brighter or darker than it, some with another core."""
    direction, distance = rng.uniform(0, 2 * np.pi), 0.65 * np.sqrt(rng.random())
    center = (CANVAS - 1) / 2 + distance * head.radii * [np.cos(direction), np.sin(direction)]
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    wobble = sum(rng.normal(0, 0.12) * np.cos(k * turn + rng.uniform(0, 6)) for k in (2, 3, 4))
    radius = RADIUS * rng.uniform(0.1, 0.32) * np.clip(1 + wobble, 0.5, 1.5)
    outline = center + radius[:, None] * np.column_stack([np.cos(turn), np.sin(turn)])
    inside = _filled(outline) * (head.r < 0.86)
    change = rng.uniform(0.15, 0.6) * rng.choice([1, 1, 1, -1])
    core = _filled(center + (outline - center) * rng.uniform(0.3, 0.7)) * rng.choice([0, 0, -0.8])
    image = slice_.image + change * (inside + core) * (1 + 0.1 * _smooth_noise(rng, 3))
    return Slice(np.maximum(image, 0).astype(np.float32), [*slice_.outlines, outline])


def _scan(slice_: Slice, rng: np.random.Generator) -> Slice:
    """Give the canvas a size, a field of view, a background, noise and sometimes marks."""
    zoom = rng.uniform(0.6, 1.6)
    image = cv2.resize(slice_.image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    before, after = rng.integers(0, int(60 * zoom), (2, 2))  # margins: x, y
    image = np.pad(image, ((before[1], after[1]), (before[0], after[0])))
    background = rng.choice([0.0, 0.0, 0.02, 0.15])
    image = background + rng.uniform(0.5, 0.8) * image + rng.normal(0, 0.015, image.shape)
    image = np.clip(255 * image, 0, 255).astype(np.uint8)
    if rng.random() < 0.15:
        cv2.putText(image, "R", (4, 22), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 230, 2)
    if rng.random() < 0.05:
        cv2.rectangle(image, (0, 0), (image.shape[1] - 1, image.shape[0] - 1), 255, 3)
    return Slice(image, [outline * zoom + before for outline in slice_.outlines])


def _smooth_noise(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Noise (256, 256) of mean 0 and standard deviation 1, smooth over `sigma` pixels."""
    coarse = max(4, round(2 * CANVAS / sigma))
    noise = cv2.GaussianBlur(rng.normal(size=(coarse, coarse)), (0, 0), 2.0)
    noise = cv2.resize(noise, (CANVAS, CANVAS), interpolation=cv2.INTER_CUBIC)
    return (noise - noise.mean()) / noise.std()


def _filled(outline: np.ndarray) -> np.ndarray:
    """The outline's inside with soft edges: float32 (256, 256) in [0, 1]."""
    canvas = np.zeros((CANVAS, CANVAS), dtype=np.float32)
    cv2.fillPoly(canvas, [np.round(outline).astype(np.int32)], 1.0)
    return cv2.GaussianBlur(canvas, (0, 0), 2.0)


def _regions(outlines: list[np.ndarray]) -> list[dict]:
    """Outlines in the VGG annotator's format, as Br35H's author published his."""
    return [
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": outline[:, 0].round(1).tolist(),
                "all_points_y": outline[:, 1].round(1).tolist(),
            }
        }
        for outline in outlines
    ]
