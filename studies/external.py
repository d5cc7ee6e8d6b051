"""A registered model on other labelled images than those that it was made with.

Owns the order of things: the model, its training images, the folder without their near-copies,
the answers, and where the result is written.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mlflow_server import Tracking, TrackingError
from mlflow_server.registry import load_model, version_tags
from studies.external_images import (
    ExternalImages,
    Seen,
    Shift,
    compare_intensities,
    find_seen,
    read_folder,
)
from studies.external_report import Result, write_words
from studies.progress import show_markdown
from studies.settings import Settings, full_name, slug
from studies.study import Study, StudyError
from training.data import DataError, Dataset, Splits, load, split, store
from training.data.preprocess import METHODS, to_gray
from training.floors import evaluate_scored
from training.over_splits import draw_groups

BATCH = 64  # images a call of the model


@dataclass(frozen=True)
class Made:
    """What a registered model was made with."""

    dataset: Dataset
    splits: Splits


@dataclass(frozen=True)
class Named:
    """A data set of which only the name is known."""

    name: str


def default_model(study: Study, settings: Settings) -> str:
    """The address under which `make study` with these settings on Br35H registers its winner."""
    return f"models:/{slug(full_name(study, Named('br35h'), settings))}@candidate"


def try_elsewhere(folder: Path, model_uri: str, settings: Settings) -> Path:
    """Answer the folder's images and write what that is worth; returns the Markdown."""
    if not folder.is_dir():
        raise DataError(f"DATA must be a folder with yes/ or no/ or both, got '{folder}'.")
    folder = folder.resolve()
    tags = find_tags(model_uri, settings)
    made = find_made(tags, model_uri, settings.root)
    images = read_folder(folder, made.dataset.preprocess)
    trained = np.concatenate([made.splits.train, made.splits.val])
    seen = find_seen(images, made.dataset, trained, made.splits.test)
    new = images.only(~seen.in_training)
    if not len(new.files):
        raise StudyError(
            f"All {len(images.files)} images in {folder} are near-copies of images that "
            f"{model_uri} was trained or tuned on. Give images of other patients."
        )
    print(f"{len(new.files)} of {len(images.files)} images are new to {model_uri}", flush=True)
    model = load_model(settings.tracking_uri, model_uri)
    groups = seen.groups[~seen.in_training]
    answers = ask(model.predict, new).assign(group=groups)
    result = Result(
        model=model_uri,
        folder=folder,
        n_images=len(images.files),
        unreadable=images.unreadable,
        n_copies=int(seen.in_training.sum()),
        n_test_copies=int(seen.in_test.sum()),
        answers=answers,
        worth=judge(answers),
        on_test=study_metrics(tags, settings),
        shift=shift_of(made, new, groups),
        compared="tumour" if (new.labels == 1).all() else "healthy",
    )
    return write(result, images, seen, settings.root / "reports")


def find_tags(model_uri: str, settings: Settings) -> dict[str, str]:
    """What the registered version says of itself."""
    try:
        return version_tags(settings.tracking_uri, model_uri)
    except TrackingError as error:
        raise StudyError(
            f"{error} `make study` registers its winner, and MODEL= names another model."
        ) from error


def find_made(tags: dict[str, str], model_uri: str, root: Path) -> Made:
    """The real images and the splits that a version's tags name.

    A model that was trained on synthetic images stands on the training images of that split too:
    their generator saw those and no others.
    """
    missing = {"data", "data_digest", "split", "seed"} - set(tags)
    if missing:
        raise StudyError(
            f"{model_uri} does not say what it was trained on (no tag {', '.join(sorted(missing))})"
            ", so copies of its training images cannot be left out. Register it with `make study`."
        )
    dataset = find_dataset(tags["data"], tags["data_digest"], root)
    if dataset is None:
        raise StudyError(
            f"The images that {model_uri} was trained on ({tags['data']}, digest "
            f"{tags['data_digest']}) are not below {root}, so their copies cannot be left out. "
            "Run any `make study` with their DATA here once: that prepares them."
        )
    splits = split(
        dataset.labels,
        dataset.groups,
        protocol=tags["split"],
        scheme=tags.get("scheme", "detector"),  # versions without that tag are detectors
        seed=int(tags["seed"]),
    )
    return Made(dataset, splits)


def find_dataset(name: str, digest: str, root: Path) -> Dataset | None:
    """A data set by its digest: prepared before, or prepared now if its name says from where."""
    for about in sorted((root / "data" / "prepared").glob("*/about.csv")):
        if pd.read_csv(about)["digest"].astype(str).item() == digest:
            return store.read(about.parent)
    if name not in ("br35h", "phantom"):
        return None
    for method in METHODS:
        try:
            dataset = load(name, preprocess=method, root=root, say=lambda _: None)
        except DataError:
            return None
        if dataset.digest == digest:
            return dataset
    return None


def ask(
    predict: Callable[[list[np.ndarray]], pd.DataFrame], images: ExternalImages
) -> pd.DataFrame:
    """A model's answers to the files as they come: file, label, score, predicted."""
    parts = []
    for start in range(0, len(images.files), BATCH):
        batch = []
        for file in images.files[start : start + BATCH]:
            with Image.open(images.folder / file) as image:
                batch.append(to_gray(image))
        parts.append(predict(batch))
    said = pd.concat(parts, ignore_index=True)
    return pd.DataFrame(
        {
            "file": images.files,
            "label": images.labels,
            "score": said["score"].to_numpy(),
            "predicted": said["label"].to_numpy(),
        }
    )


def judge(answers: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Every metric with its 95 % interval over groups; of one class its share of right answers."""
    columns = ("label", "group", "score", "predicted")
    labels, groups, scores, predicted = (answers[name].to_numpy() for name in columns)
    if len(set(labels)) == 2:
        scored = evaluate_scored("external", labels, groups, scores, predicted)
        return {
            name: (scored.metrics[name], *interval) for name, interval in scored.intervals.items()
        }
    weights = draw_groups(groups, labels).of(groups)
    right = predicted == labels
    low, high = np.quantile((weights * right).sum(axis=1) / weights.sum(axis=1), (0.025, 0.975))
    return {"recall" if labels[0] else "specificity": (right.mean(), low, high)}


def study_metrics(tags: dict[str, str], settings: Settings) -> dict[str, tuple[float, ...]]:
    """What the model's study had on its own test split; {} where another trial was its last."""
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    parent = tracking.tags(tags["run_id"]).get("mlflow.parentRunId")
    if parent is None or tracking.tags(parent).get("best_trial") != tags.get("trial"):
        return {}
    kept = tracking.metrics(parent)
    return {
        name.removeprefix("test_"): (
            value,
            *(kept[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in kept),
        )
        for name, value in kept.items()
        if name.startswith("test_")
    }


def shift_of(made: Made, new: ExternalImages, groups: np.ndarray) -> Shift:
    """Healthy slices here beside the healthy training slices; of a folder of tumours, those."""
    dataset, train = made.dataset, made.splits.train
    known = train[dataset.labels[train] == 0]
    healthy = new.labels == 0
    compared = healthy if healthy.any() else ~healthy
    n_groups = len(set(dataset.groups[known])), len(set(groups[compared]))
    return compare_intensities(dataset.images[known], new.frames[compared], n_groups=n_groups)


def write(result: Result, images: ExternalImages, seen: Seen, folder: Path) -> Path:
    """Write words and answers below `folder`; returns the words' place."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"external-{slug(result.folder.name)}-{slug(result.model.split(':/')[-1])}.md"
    words = write_words(result)
    path.write_text(words, encoding="utf-8")
    left_out = pd.DataFrame({"file": images.files, "label": images.labels})[seen.in_training]
    table = pd.concat([result.answers, left_out.assign(left_out="near-copy of a training image")])
    table.to_csv(path.with_suffix(".csv"), index=False)
    show_markdown(words)
    print(f"Written: {path}")
    return path
