"""A study repeated over several splits, with controls: what its numbers hold.

Owns the order of things: a search for each seed, the answers on its test split, their means, and
where they are written. How a study is run is the runner's, which methods are asked
`evidence_split`'s, what may be claimed `claims`'.
"""

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from optuna.trial import FrozenTrial

from mlflow_server import DatasetUse, Tracking
from studies.control_runs import CONTROLS
from studies.evidence_page import write_page
from studies.evidence_report import (
    COLUMNS,
    CONFOUND,
    CONTROL,
    FLOOR,
    METHOD,
    OPERATING,
    REFERENCE,
    Evidence,
    Row,
    as_table,
    places,
    write_markdown,
)
from studies.evidence_split import (
    CONFOUNDS,
    F1_THRESHOLD,
    RECALL_THRESHOLD,
    REFERENCES,
    Split,
    n_ended,
    score_split,
)
from studies.finish import answers_path
from studies.progress import format_params, format_seconds, show_markdown
from studies.runner import open_search, run
from studies.session import Session, open_session
from studies.settings import Settings
from studies.storage import best_feasible, open_storage
from studies.study import Study
from training.floors import FLOORS
from training.over_splits import draw_groups, repeat

N_SPLITS = 5
EXPERIMENT = "evidence"


def make_evidence(study: Study, settings: Settings, n_splits: int = N_SPLITS) -> bool:
    """Gather the evidence, write it below `reports/` and to MLflow; False when interrupted.

    Every seed's study has `settings.trials` trials in the end: the same call reads what is there.
    """
    evidence = gather(study, settings, n_splits)
    if evidence is None:
        return False
    page = write_files(evidence, settings.root / "reports")
    show_markdown(write_markdown(evidence))
    print(f"Evidence: {page}")
    publish(evidence, settings)
    print("Browse: make ui")
    return True


def gather(study: Study, settings: Settings, n_splits: int) -> Evidence | None:
    """Search and answer for the seeds from `settings.seed` on; None when it was interrupted.

    `settings.trials` is what each seed's study shall have in the end: what it has already is not
    run again, and a test split is asked once for each best trial.
    """
    started = time.monotonic()
    splits = []
    for done in range(n_splits):
        session = complete(study, replace(settings, seed=settings.seed + done))
        if session is None:
            return None
        splits.append(score_split(session))
        print(progress_line(splits, n_splits, seconds=time.monotonic() - started), flush=True)
    return assemble(open_session(study, settings, say=lambda _: None), splits)


def progress_line(splits: list[Split], n_splits: int, *, seconds: float) -> str:
    """The split that ended last, and how long the others take."""
    last, method = splits[-1], next(iter(splits[-1].answers.values()))
    left = seconds / len(splits) * (n_splits - len(splits))
    shown = ", ".join(f"{name} {method.metrics[name]:.3f}" for name in ("auroc", "macro_f1"))
    return (
        f"split {len(splits)}/{n_splits} (seed {last.seed}): {shown}; {format_seconds(left)} left"
    )


def complete(study: Study, settings: Settings) -> Session | None:
    """The session of a study that has its trials and its answers; None when it was interrupted."""
    session = open_session(study, settings, say=lambda _: None)
    settings.root.mkdir(parents=True, exist_ok=True)
    search = open_search(session, open_storage(settings.storage_url))
    wanted = session.study.n_trials if settings.trials is None else settings.trials
    missing = max(wanted - n_ended(search), 0)
    if missing or not is_concluded(session, best_feasible(search)):
        print(f"{session.name}: {missing} of {wanted} trials to run", flush=True)
        if not run(study, replace(settings, trials=missing)):
            return None
    return session


def is_concluded(session: Session, best: FrozenTrial | None) -> bool:
    """Whether the best trial has answered the test split."""
    return best is not None and answers_path(session, best).exists()


def assemble(session: Session, splits: list[Split]) -> Evidence:
    """Every method's mean over the splits."""
    dataset = session.lab.dataset
    draws = draw_groups(dataset.groups, dataset.labels, seed=session.settings.seed)
    names = [name for name in splits[0].answers if all(name in one.answers for one in splits)]
    rows = [
        Row(KINDS.get(name, METHOD), repeat(name, [split.answers[name] for split in splits], draws))
        for name in names
    ]
    seeds = f"{splits[0].seed} to {splits[-1].seed}"
    chosen = {f"chosen, seed {one.seed}": format_params(one.params) for one in splits}
    facts = {
        **session.facts(),
        "split": f"{session.settings.split}, {len(splits)} splits, seeds {seeds}",
        "trials": ", ".join(str(one.n_trials) for one in splits) + " (a split each)",
        "looks at the test splits": ", ".join(str(one.looks) for one in splits),
        **chosen,
    }
    return Evidence(
        name=session.name,
        slug=session.slug,
        doc=session.study.doc,
        protocol=session.settings.split,
        dataset=dataset,
        splits=splits,
        rows=rows,
        facts=facts,
        tags=session.tags(),
    )


KINDS = {
    RECALL_THRESHOLD: OPERATING,
    F1_THRESHOLD: OPERATING,
    **dict.fromkeys(FLOORS, FLOOR),
    **dict.fromkeys(CONFOUNDS, CONFOUND),
    **dict.fromkeys(REFERENCES, REFERENCE),
    **dict.fromkeys(CONTROLS, CONTROL),
}  # of every row but the method's


def write_files(evidence: Evidence, folder: Path) -> Path:
    """Write words, numbers and page; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / f"evidence-{evidence.slug}.html"
    page.write_text(write_page(evidence), encoding="utf-8")
    page.with_suffix(".md").write_text(write_markdown(evidence), encoding="utf-8")
    as_table(evidence).to_csv(page.with_suffix(".csv"), index=False)
    return page


def publish(evidence: Evidence, settings: Settings) -> None:
    """One run for each study in an experiment of its own; a second call completes the first's."""
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    experiment = tracking.experiments.open(
        EXPERIMENT, note="Studies repeated over several splits, with controls.", tags={}
    )
    run_id = tracking.open_study(
        experiment, evidence.name, params={}, tags=evidence.tags, datasets=[lineage(evidence)]
    )
    with TemporaryDirectory() as folder:
        write_files(evidence, Path(folder))
        tracking.log_artifacts(run_id, Path(folder))
    tracking.close_study(
        run_id,
        status="FINISHED",
        metrics=as_metrics(evidence),
        tags={},
        note=write_markdown(evidence),
    )


def lineage(evidence: Evidence) -> DatasetUse:
    """The data that all splits are cut from."""
    dataset = evidence.dataset
    return DatasetUse(dataset.name, dataset.digest, dataset.name, "test", len(dataset.labels))


def as_metrics(evidence: Evidence) -> dict[str, float]:
    """Means, spreads and bounds of the method, and the controls' and floors' AUROC."""
    method = evidence.method
    metrics = {}
    for name in COLUMNS:
        low, high = method.interval(name)
        metrics |= {name: method.mean(name), f"{name}_low": low, f"{name}_high": high}
        metrics[f"{name}_sd"] = method.spread(name)
    others = {
        f"{row.name}_auroc": row.repeated.mean("auroc")
        for row in evidence.rows
        if row.kind not in (METHOD, OPERATING)
    }
    found = {f"place_{row.measure}": row.mean for row in places(evidence).itertuples()}
    return metrics | others | found
