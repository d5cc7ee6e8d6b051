"""The history of decisions as text."""

import json

from studies.promotion.decision import REFUSED, Decision
from studies.promotion.history import Entry


def as_lines(entries: list[Entry]) -> str:
    """A paragraph a decision, the first first."""
    if not entries:
        return "Nothing was decided yet: `make promote STUDY=<name>` is the first."
    return "\n".join(_paragraph(entry) for entry in entries)


def as_json(entries: list[Entry]) -> str:
    """All decisions with their evidence."""
    return json.dumps([json.loads(entry.decision.as_json()) for entry in entries], indent=1)


def _paragraph(entry: Entry) -> str:
    decision = entry.decision
    undone = "" if entry.is_done else " (begun, and not carried out to its end)"
    lines = [
        f"{entry.number:>3}  {decision.when}  {decision.who}  {decision.headline()}{undone}",
        f"     {_change(decision)}",
        *_failed(decision),
        *([f"     why: {decision.why}"] if decision.why else []),
        f"     data {decision.facts.get('data digest', 'unknown')[:12]}, "
        f"commit {decision.commit[:12]}, test split "
        f"{decision.facts.get('test split', 'not asked')}",
    ]
    return "\n".join(lines)


def _change(decision: Decision) -> str:
    before = decision.before or "none"
    if decision.outcome == REFUSED:
        return f"{decision.alias} stays {before}"
    return f"{decision.alias}: {before} -> {decision.after}"


def _failed(decision: Decision) -> list[str]:
    failed = [check for check in decision.checks if not check.passed]
    return [f"     not shown: {check.rule}: {check.found}" for check in failed]
