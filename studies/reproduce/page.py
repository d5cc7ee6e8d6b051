"""A reproduction as Markdown: what was around the trial, its numbers then and now, one sentence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from studies.provenance import NO_CHANGES, Commit
from studies.reproduce.agreement import (
    BIT_EQUAL,
    DIFFERS,
    GONE,
    IN_TOLERANCE,
    SAME_ERROR,
    Agreement,
    Row,
)
from studies.reproduce.conditions import CHANGES, REQUIREMENTS
from studies.reproduce.recorded import Recorded
from studies.reproduce.surroundings import COMMIT, NOT_RECORDED, Surrounding
from studies.summary import DISCLAIMER

NAMED = 4  # metrics that a sentence names
CODE = {"commit", "uncommitted changes"}


@dataclass(frozen=True)
class Reproduction:
    """One trial run again."""

    recorded: Recorded
    at: datetime
    commit: Commit
    around: list[Surrounding]
    agreement: Agreement

    @property
    def commit_then(self) -> str:
        """The commit that the trial ran on."""
        return self.recorded.tags[COMMIT]


def write_reproduction(done: Reproduction) -> str:
    """The whole of it, under a heading with its time: what the run keeps."""
    parts = [
        f"## {done.at:%Y-%m-%d %H:%M:%S} UTC: {done.agreement.word}",
        write_surroundings(done.around),
        write_rows(done.agreement.rows),
        write_sentence(done),
        f"*{DISCLAIMER}*",
    ]
    return "\n\n".join(parts) + "\n"


def write_surroundings(around: Sequence[Surrounding]) -> str:
    """A row each: then, now, and whether it matters where it differs."""
    rows = [(one.name, one.then, one.now, one.matters or "-") for one in around]
    return as_table(("around it", "then", "now", "matters"), rows)


def write_rows(rows: Sequence[Row]) -> str:
    """A row each metric; every digit that there is."""
    shown = [
        (
            row.name + (f" ({row.n_epochs} epochs)" if row.n_epochs else ""),
            _digits(row.then),
            _digits(row.now),
            "-" if not row.difference else f"{row.difference:+.2g}",
            row.verdict,
        )
        for row in rows
    ]
    return as_table(("metric", "then", "now", "difference", "verdict"), shown)


def write_sentence(done: Reproduction) -> str:
    """Whether the record holds, and where to look where it does not."""
    agreement, title = done.agreement, _capital(done.recorded.title)
    if agreement.word == SAME_ERROR:
        return f"{title} fails with the same error again."
    if agreement.word == BIT_EQUAL:
        return f"{title} is reproduced to the last bit: {_counted(agreement.rows)}."
    allowed = agreement.tolerance
    if agreement.word == IN_TOLERANCE:
        return f"{title} is reproduced within {allowed.metric:.0%}, since {allowed.reason}."
    named = [row.name for row in agreement.rows if row.verdict in (DIFFERS, GONE)]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    sentence = f"{title} differs from its record in {', '.join(named[:NAMED])}{more}."
    return " ".join([sentence, *_cures(done)])


def _cures(done: Reproduction) -> list[str]:
    """How to come back to what was, as far as it is known; a sentence each."""
    changed = {one.name: one for one in done.around if one.differs}
    cures = [f"What changed around it: {', '.join(changed)}."] if changed else []
    if CODE & set(changed):
        diff = changed.get("uncommitted changes")
        known = diff and diff.then not in (NO_CHANGES, NOT_RECORDED)
        apply = (
            f", then `git apply {CHANGES.format(diff.then)}` of its study's run" if known else ""
        )
        cures.append(f"Its code: `git checkout {done.commit_then[:12]}`{apply}.")
    if "packages" in changed and "requirements" in done.recorded.tags:
        file = REQUIREMENTS.format(done.recorded.tags["requirements"])
        cures.append(f"Its packages: {file} of its study's run.")
    allowed = done.agreement.tolerance
    if allowed.metric:
        cures.append(
            f"{allowed.metric:.0%} was allowed, since {allowed.reason}; a training on few images "
            "can make more of that."
        )
    return cures or [
        "Nothing that is recorded around it has changed: either the record was changed, or "
        "something that calculates is not seeded."
    ]


def _counted(rows: Sequence[Row]) -> str:
    epochs = [row for row in rows if row.n_epochs]
    n_results = sum(1 for row in rows if not row.n_epochs and row.then is not None)
    counted = [f"{n_results} metrics"] if n_results else []
    if epochs:
        counted.append(f"{len(epochs)} measures of {max(row.n_epochs for row in epochs)} epochs")
    return " and ".join(counted)


def as_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns stand below each other in plain text too."""
    lines = [list(header), *([_cell(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "| " + " | ".join(f"{cell:<{n}}" for cell, n in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "| " + " | ".join("-" * n for n in widths) + " |"
    return "\n".join([padded[0], rule, *padded[1:]])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _digits(value: float | str | None) -> str:
    return "-" if value is None else str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
