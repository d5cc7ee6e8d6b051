"""A decision about the champion as data, as JSON and as Markdown.

Owns what is remembered of a promotion, a refusal or a rollback. Knows nothing of how it is reached
or where it is kept.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from studies.promotion.gate import Check
from studies.summary import DISCLAIMER, as_rows

PROMOTED, FORCED, REFUSED, ROLLED_BACK = "promoted", "forced", "refused", "rolled back"
SETS_THE_ALIAS = (PROMOTED, FORCED, ROLLED_BACK)


@dataclass(frozen=True)
class Decision:
    """Who decided what about an alias, when, and on which evidence."""

    outcome: str  # one of the four above
    alias: str
    model: str  # the version that was up for it: models:/giaem/2
    before: str | None  # the version that had the alias: models:/tumor-detector/1
    after: str | None  # the version that has it now
    why: str
    who: str
    when: str  # ISO 8601, UTC
    commit: str
    facts: dict[str, str]  # data digest, test split, how often that was looked at, limits
    metrics: dict[str, tuple[float, float, float]] = field(default_factory=dict)  # value, low, high
    checks: list[Check] = field(default_factory=list)
    previous: str | None = None  # the digest of the decision before this one

    def as_json(self) -> str:
        """All of it; `from_json` reads it."""
        content = asdict(self) | {"checks": [check._asdict() for check in self.checks]}
        return json.dumps(content, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Decision":
        """What `as_json` wrote."""
        content: dict[str, Any] = json.loads(text)
        known = {one.name for one in fields(cls)}
        content = {name: value for name, value in content.items() if name in known}
        metrics = {name: tuple(values) for name, values in content["metrics"].items()}
        checks = [Check(**check) for check in content["checks"]]
        return cls(**{**content, "metrics": metrics, "checks": checks})

    def digest(self) -> str:
        """What the next decision names: none can be changed or left out without a trace."""
        return hashlib.sha256(self.as_json().encode()).hexdigest()

    def headline(self) -> str:
        """One line: what was decided."""
        if self.outcome == REFUSED:
            return f"{self.model} was refused as {self.alias}"
        if self.outcome == ROLLED_BACK:
            return f"{self.alias} was rolled back to {self.after}"
        return f"{self.model} was {self.outcome} to {self.alias}"

    def as_markdown(self) -> str:
        """The evidence, to be read."""
        failed = sum(not check.passed for check in self.checks)
        counted = f"{len(self.checks) - failed} of {len(self.checks)} rules of the gate are kept."
        parts = [
            f"## {self.headline()}",
            f"**Why**: {self.why}" if self.why else "",
            counted if self.checks else "",
            check_table(self.checks),
            metric_table(self.metrics),
            as_rows(
                {
                    "before": self.before or "none",
                    "after": self.after or "none",
                    "who": self.who,
                    "when": self.when,
                    "commit": self.commit[:12],
                    **self.facts,
                }
            ),
            f"*{DISCLAIMER}*",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"


def check_table(checks: list[Check]) -> str:
    """The gate, a row a rule."""
    if not checks:
        return ""
    rows = [
        f"| {'kept' if check.passed else '**FAILED**'} | {check.rule} | {check.found} |"
        for check in checks
    ]
    return "\n".join(["| | rule | found on test |", "| --- | --- | --- |", *rows])


def metric_table(metrics: dict[str, tuple[float, float, float]]) -> str:
    """What the model has on its test images."""
    if not metrics:
        return ""
    rows = [
        f"| {name} | {value:.3f} | {low:.3f} to {high:.3f} |"
        for name, (value, low, high) in metrics.items()
    ]
    return "\n".join(["| on test | value | 95 % interval |", "| --- | ---: | ---: |", *rows])
