"""Every decision about champions, in order: an MLflow experiment to which runs are only added.

Each decision names the digest of the one before it, so that a run that was changed or removed
shows. Knows nothing of how decisions are reached.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mlflow_server import Tracking
from studies.promotion.decision import ROLLED_BACK, SETS_THE_ALIAS, Decision
from studies.study import StudyError

EXPERIMENT = "promotions"
JSON, MARKDOWN = "decision.json", "decision.md"
DIGEST, NUMBER = "digest", "decision"  # tags of a run


@dataclass(frozen=True)
class Entry:
    """A decision as it is kept, and whether it was carried out."""

    number: int
    decision: Decision
    run_id: str
    is_done: bool


class History:
    """The decisions at one tracking address."""

    def __init__(self, tracking: Tracking):
        self._tracking = tracking
        self._experiment = tracking.experiments.open(
            EXPERIMENT,
            note="Who became champion, when, why and on which evidence. Runs are only added.",
            tags={},
        )

    def entries(self) -> list[Entry]:
        """All decisions, the first first; StudyError when one was changed or is missing."""
        found = self._tracking.tagged_runs([self._experiment], NUMBER)
        found.sort(key=lambda run: int(run.tags[NUMBER]))
        entries, previous = [], None
        for place, run in enumerate(found, 1):
            decision = self._read(run.run_id)
            number, digest = int(run.tags[NUMBER]), decision.digest()
            if (number, decision.previous, run.tags[DIGEST]) != (place, previous, digest):
                raise StudyError(
                    f"Decision {place} of the history was changed or removed: what stands there "
                    f"does not follow from the one before it. Look at the runs of the experiment "
                    f"'{EXPERIMENT}' (deleted ones can be restored), or restore a backup."
                )
            entries.append(Entry(number, decision, run.run_id, run.status == "FINISHED"))
            previous = digest
        return entries

    def begin(self, decision: Decision, number: int) -> str:
        """Write a decision down before it is carried out; returns its run."""
        tags = {
            NUMBER: str(number),
            DIGEST: decision.digest(),
            "outcome": decision.outcome,
            "alias": decision.alias,
            "model": decision.model,
            "before": decision.before or "",
            "after": decision.after or "",
        }
        run_id = self._tracking.add_run(self._experiment, decision.headline(), tags=tags)
        with TemporaryDirectory() as scratch:
            (Path(scratch) / JSON).write_text(decision.as_json(), encoding="utf-8")
            (Path(scratch) / MARKDOWN).write_text(decision.as_markdown(), encoding="utf-8")
            self._tracking.log_artifacts(run_id, Path(scratch))
        return run_id

    def finish(self, run_id: str, decision: Decision) -> None:
        """Say that a decision was carried out."""
        self._tracking.close_study(
            run_id,
            status="FINISHED",
            metrics={name: values[0] for name, values in decision.metrics.items()},
            tags={},
            note=decision.as_markdown(),
        )

    def _read(self, run_id: str) -> Decision:
        with TemporaryDirectory() as scratch:
            path = self._tracking.download(run_id, JSON, Path(scratch))
            return Decision.from_json(path.read_text(encoding="utf-8"))


def holders(entries: list[Entry], alias: str) -> list[str]:
    """The versions that have had an alias and were not rolled back, the present one last."""
    stack: list[str] = []
    for entry in entries:
        decision = entry.decision
        if decision.alias != alias or decision.outcome not in SETS_THE_ALIAS or not entry.is_done:
            continue
        if decision.outcome == ROLLED_BACK:
            with suppress(ValueError):
                del stack[stack.index(decision.after) :]
        stack.append(decision.after)
    return stack
