"""How `make gc` says what goes and what stays: a table by kind, and a line for each reason."""

from typing import TYPE_CHECKING, NamedTuple

from studies.settings import CHAMPIONS

if TYPE_CHECKING:
    from studies.upkeep.gc import Plan


class Row(NamedTuple):
    """A kind of what lies on disk: its bytes, and how many pieces and bytes of them go."""

    kind: str
    held: int
    pieces: int
    goes: int


def write_account(rows: list[Row], plan: "Plan") -> str:
    """The table and what is behind it, as Markdown."""
    lines = [
        "| | before | goes | pieces | after |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(_line(row) for row in rows),
        _line(Row("**all**", *(sum(column) for column in list(zip(*rows, strict=True))[1:]))),
    ]
    return "\n".join(lines) + "\n\n" + "\n".join(f"- {line}" for line in _reasons(plan)) + "\n"


def _line(row: Row) -> str:
    cells = (size(row.held), size(row.goes), row.pieces or "", size(row.held - row.goes))
    return f"| {row.kind} | " + " | ".join(str(cell) for cell in cells) + " |"


def _reasons(plan: "Plan") -> list[str]:
    needs, holdings = plan.needs, plan.holdings
    n_aliases = sum(bool(version.aliases) for version in holdings.versions)
    n_champions = sum(version.name == CHAMPIONS for version in holdings.versions)
    said = [
        f"Kept: the best {plan.keep} trials of each study, {n_aliases} versions with an alias and "
        f"{n_champions} of {CHAMPIONS}, with the runs that hold their networks' weights. Every run "
        "keeps its parameters and metrics.",
        f"{len(needs.versions_to_remove)} registered versions without alias go with their models.",
    ]
    if needs.running:
        said.append(
            f"Left alone, because they run or were killed: {', '.join(needs.running)}; and so are "
            "the cache and all weights. `make study` goes on with what was killed, and closes it."
        )
    if needs.unknown:
        said.append(
            f"Left alone, because their trials are not in this OPTUNA_STORAGE: "
            f"{', '.join(needs.unknown)}."
        )
    if plan.strangers:
        held = size(sum(folder.size for folder in plan.strangers))
        said.append(
            f"Left alone: {len(plan.strangers)} folders ({held}) that this record has never heard "
            f"of, such as {plan.strangers[0].path}. Delete them if no other record has its files "
            "there."
        )
    return said


def size(n_bytes: int) -> str:
    """Bytes as a person reads them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} B"
