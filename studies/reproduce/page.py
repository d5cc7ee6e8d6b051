"""A reproduction as Markdown: what was around the trial, its numbers then and now, one sentence."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from studies.provenance import NO_CHANGES, Commit
from studies.reproduce.agreement import BIT_EQUAL, DIFFERS, GONE, SAME_ERROR, Agreement, Row
from studies.reproduce.conditions import CHANGES
from studies.reproduce.recorded import Recorded
from studies.reproduce.surroundings import Surrounding
from studies.summary import DISCLAIMER

NAMED = 4  # metrics that a sentence names


@dataclass(frozen=True)
class Reproduction:
    """One trial run again."""

    recorded: Recorded
    at: datetime
    commit: Commit
    around: list[Surrounding]
    agreement: Agreement


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
    reason = agreement.tolerance.reason
    match agreement.word:
        case word if word == SAME_ERROR:
            return f"{title} fails with the same error again."
        case word if word == BIT_EQUAL:
            return f"{title} is reproduced to the last bit: {_counted(agreement.rows)}."
        case word if word != DIFFERS:
            allowed = f"{agreement.tolerance.metric:.0%}"
            return f"{title} is reproduced within {allowed}, since {reason}."
    named = [row.name for row in agreement.rows if row.verdict in (DIFFERS, GONE)]
    more = f" and {len(named) - NAMED} more" if len(named) > NAMED else ""
    return f"{title} differs from its record in {', '.join(named[:NAMED])}{more}. {_cure(done)}"


def _cure(done: Reproduction) -> str:
    """How to come back to what was."""
    changed = {one.name: one for one in done.around if one.differs}
    if not changed:
        return (
            "Nothing that is recorded around it has changed: either the record was changed, or "
            "something that calculates is not seeded."
        )
    words = [f"What changed around it: {', '.join(changed)}."]
    if "commit" in changed or "uncommitted changes" in changed:
        words.append(f"Its code: `git checkout {done.around[0].then}`")
        changes = changed.get("uncommitted changes")
        if changes and changes.then != NO_CHANGES:
            words[-1] += f", then `git apply` on {CHANGES.format(changes.then)} of its parent run"
        words[-1] += "."
    return " ".join(words)


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
