"""`make compare`: several studies held against one another on one page, and in MLflow.

Owns the order of things: which studies, what is kept of them, what is compared, and where it is
written. Nothing is searched, trained or asked here.
"""

import hashlib
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow_server import DatasetUse, Tracking, TrackingError
from mlflow_server.server import compare_url
from studies.compare.comparison_page import write_page
from studies.compare.comparison_report import (
    MANY,
    Comparison,
    Tested,
    as_markdown,
    as_metrics,
    as_rows,
    begun_with,
)
from studies.compare.contestants import Contestant, read_contestants
from studies.compare.differences import find_pairs
from studies.compare.disagreements import find_disagreements
from studies.compare.names import choose, shortened
from studies.compare.same_images import (
    TestSet,
    difference,
    find_test_sets,
    refuse_different,
)
from studies.progress import show_markdown
from studies.settings import Settings
from studies.storage import specifications

EXPERIMENT = "comparisons"
LOCAL_SERVER = "http://127.0.0.1:5000"  # where `make ui` serves
LONGEST = 120  # letters of a file's name


def compare(words: list[str], settings: Settings) -> Path:
    """Compare the studies that are meant; returns the page. Their test images must be the same."""
    return _compare(words, settings, check=refuse_different)


def compare_anyway(words: list[str], settings: Settings) -> Path:
    """The same, but those of different test images are shown beside each other, unpaired."""
    return _compare(words, settings, check=lambda contestants: None)


def _compare(
    words: list[str], settings: Settings, check: Callable[[list[Contestant]], None]
) -> Path:
    settings.root.mkdir(parents=True, exist_ok=True)
    names = choose(words, specifications(settings.storage_url))
    tracking = open_record(settings)
    contestants = read_contestants(names, settings, tracking)
    check(contestants)
    comparison = assemble(contestants, settings)
    page = write_files(comparison, settings.root / "reports")
    show_markdown(as_markdown(comparison))
    print(f"Comparison: {page}")
    if tracking is not None:
        publish(comparison, tracking)
    if comparison.link:
        where = "" if settings.tracking_uri.startswith("http") else " (with `make ui` running)"
        print(f"The winners in MLflow{where}: {comparison.link}")
    return page


def open_record(settings: Settings) -> Tracking | None:
    """MLflow, or None while its server is away: a comparison needs what is on this disk."""
    try:
        return Tracking(settings.tracking_uri, settings.artifact_root)
    except TrackingError as error:
        if not settings.tracking_uri.startswith("http"):
            raise
        print(f"{error} The comparison goes on with what is on this disk, and is not published.")
        return None


def assemble(contestants: list[Contestant], settings: Settings) -> Comparison:
    """Everything that is said of these studies."""
    tests = find_test_sets(contestants)
    return Comparison(
        contestants=contestants,
        tested=[examine(each, settings.root) for each in tests],
        unpaired=unpaired(tests, shortened([one.name for one in contestants])),
        link=winners_link(contestants, settings.tracking_uri),
    )


def examine(tests: TestSet, root: Path) -> Tested:
    """One set of test images: the pairs of winners, and where they disagree."""
    alone = len(tests.contestants) < 2
    return Tested(tests, find_pairs(tests), None if alone else find_disagreements(tests, root))


def unpaired(tests: list[TestSet], names: dict[str, str]) -> list[str]:
    """Why the winners of two sets of test images are not paired, a Markdown sentence each; one for
    all where there are many sets.
    """
    said = [
        f"Not paired: {_in_bold(one, names)} with {_in_bold(other, names)}, since {what}."
        for one, other in combinations(tests, 2)
        if (what := difference(one.contestants[0], other.contestants[0]))
    ]
    if len(said) <= MANY:
        return said
    return [f"Not paired: the winners of {len(tests)} different sets of test images."]


def _in_bold(tests: TestSet, names: dict[str, str]) -> str:
    return ", ".join(f"**{names[contestant.name]}**" for contestant in tests.contestants)


def winners_link(contestants: list[Contestant], tracking_uri: str) -> str | None:
    """MLflow's own comparison of the winners' runs; None where fewer than two have one."""
    published = [one.kept for one in contestants if "best_run" in one.kept.tags]
    if len(published) < 2:
        return None
    base = tracking_uri.rstrip("/") if tracking_uri.startswith("http") else LOCAL_SERVER
    runs = [kept.tags["best_run"] for kept in published]
    return compare_url(base, runs, dict.fromkeys(kept.experiment for kept in published))


def file_stem(comparison: Comparison) -> str:
    """`compare-dbscan-giaem`: the same for the same studies in any order."""
    name = "-".join(["compare", *sorted(one.slug for one in comparison.contestants)])
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def write_files(comparison: Comparison, folder: Path) -> Path:
    """Write page, words, numbers and the images that are answered differently; the page's place."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = file_stem(comparison)
    page = folder / f"{stem}.html"
    page.write_text(write_page(comparison), encoding="utf-8")
    page.with_suffix(".md").write_text(as_markdown(comparison), encoding="utf-8")
    as_rows(comparison).to_csv(page.with_suffix(".csv"), index=False)
    differing = [each.disagreements for each in comparison.tested if each.disagreements]
    for number, found in enumerate(differing):
        suffix = f"-{number}" if number else ""
        found.table.to_csv(folder / f"{stem}-disagreements{suffix}.csv", index=False)
    return page


def publish(comparison: Comparison, tracking: Tracking) -> None:
    """One run for each set of studies; comparing them again renews it."""
    experiment = tracking.experiments.open(
        EXPERIMENT, note="Studies held against one another.", tags={}
    )
    run_id = tracking.open_study(
        experiment,
        file_stem(comparison),
        params={},
        tags={"studies": begun_with(comparison)},
        datasets=[lineage(each.tests) for each in comparison.tested],
    )
    with TemporaryDirectory() as folder:
        write_files(comparison, Path(folder))
        tracking.log_artifacts(run_id, Path(folder))
    tracking.close_study(
        run_id,
        status="FINISHED",
        metrics=as_metrics(comparison),
        tags={},
        note=as_markdown(comparison),
    )


def lineage(tests: TestSet) -> DatasetUse:
    """The images that winners have answered."""
    data = tests.contestants[0].data
    return DatasetUse(data["name"], data["digest"], data["name"], "test", len(tests.files))
