"""`make reproduce`: the order of things, from a run's id to its verdict.

What a run was is `recorded`'s, how it is run again `again`'s, what the numbers say `agreement`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from mlflow_server import Tracking, local_artifacts
from studies.reproduce.again import (
    Again,
    History,
    clean_session,
    find_data,
    find_device,
    run_again,
)
from studies.reproduce.agreement import NEW, by_metric, compare, is_clock
from studies.reproduce.page import (
    Reproduction,
    write_reproduction,
    write_rows,
    write_sentence,
    write_surroundings,
)
from studies.reproduce.recorded import PRUNED, Recorded, find_trial, read_recorded
from studies.reproduce.surroundings import check_images, surroundings, tolerance
from studies.runner import interrupts
from studies.session import Session
from studies.study import BATCHES, StudyError
from studies.summary import DISCLAIMER
from training.device import on_threads

PAGE = "reproduction.md"  # below a run: every reproduction of it, the newest first


def reproduce(
    asked: str, places: dict[str, Any], *, data: str | None = None, device: str | None = None
) -> Reproduction:
    """Run the trial that RUN means again, and say on its run what came of it.

    `data` says where its images are now, where they have moved; `device` is the run's own kind
    where none is asked for. Interrupted, it leaves nothing.
    """
    tracking = Tracking(places["tracking_uri"], local_artifacts(places["root"]))
    run_id, remark = find_trial(tracking, asked)
    if remark:
        print(remark)
    recorded = read_recorded(tracking, run_id)
    threads = recorded.tags.get("threads")
    with interrupts() as interrupted, on_threads(int(threads) if threads else None):
        done = run_recorded(recorded, places, data=data, device=device)
        interrupted.held = True  # what is kept is kept whole
        if interrupted.is_set():
            raise KeyboardInterrupt
        keep(tracking, done)
    return done


def run_recorded(
    recorded: Recorded, places: dict[str, Any], *, data: str | None, device: str | None
) -> Reproduction:
    """Say what differs around a trial, run it again, and say what differs in its numbers."""
    tags = recorded.tags
    with clean_session(
        places,
        recorded.settings,
        data=data or find_data(recorded.settings, tags["data"]),
        device=device or find_device(tags["device"]),
        precision=tags["precision"],
    ) as session:
        around = surroundings(recorded, session)
        print(f"\n{write_surroundings(around)}\n", flush=True)
        check_images(recorded, around)
        again = run_watched(recorded, session)
        commit = session.commit
        allowed = tolerance(recorded, around, session.lab.device.type)
    series = recorded.series(epochs=by_metric(again.history))
    agreement = compare(series, recorded.error, again, allowed)
    if all(row.verdict == NEW for row in agreement.rows):
        raise StudyError(f"Run {recorded.run.run_id} has no number to compare with.")
    done = Reproduction(recorded, datetime.now(UTC), commit, around, agreement)
    print(f"{write_rows(agreement.rows)}\n\n{write_sentence(done)}\n{DISCLAIMER}")
    return done


def run_watched(recorded: Recorded, session: Session) -> Again:
    """Run it again, with a line that says how far it is."""
    with Console().status(f"{recorded.title}: runs again ...") as status:
        return run_again(
            session,
            recorded.params,
            half_batches=BATCHES in recorded.tags,
            is_pruned=has_epochs(recorded.run.series) if recorded.state == PRUNED else never,
            on_epoch=lambda n: status.update(f"{recorded.title}: epoch {n} ..."),
        )


def has_epochs(series: Mapping[str, Sequence[float]]) -> Callable[[History], bool]:
    """Whether a training has come as far as a record of its epochs."""

    def has_all(history: History) -> bool:
        now = by_metric(history)
        return all(
            len(now.get(name, ())) >= len(series[name]) for name in series if not is_clock(name)
        )

    return has_all


def never(history: History) -> bool:
    """What is not pruned trains to its end."""
    return False


def keep(tracking: Tracking, done: Reproduction) -> None:
    """Tag the run with the outcome, and put this page above those of earlier times."""
    run_id = done.recorded.run.run_id
    with TemporaryDirectory() as scratch:
        earlier = ""
        if PAGE in tracking.files(run_id):
            earlier = tracking.download(run_id, PAGE, Path(scratch) / "earlier").read_text()
        folder = Path(scratch) / "now"
        folder.mkdir()
        (folder / PAGE).write_text("\n".join([write_reproduction(done), earlier]).strip() + "\n")
        tracking.log_artifacts(run_id, folder)
    tracking.tag(
        run_id,
        {
            "reproduced": done.agreement.word,
            "reproduced_at": f"{done.at:%Y-%m-%dT%H:%M:%SZ}",
            "reproduced_commit": done.commit.hash
            + (" with changes" if done.commit.is_dirty else ""),
        },
    )
