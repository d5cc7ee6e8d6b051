"""A database whose files have moved: every address in it that began with the old folder is changed.

MLflow writes absolute addresses of files into many tables, in three ways: as they are, quoted in
file:// addresses, and escaped inside JSON. So every text in every table is looked at. Knows no
table by name.
"""

import json
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote


def relocate(database: Path, moves: Mapping[Path, Path]) -> int:
    """Have an SQLite file name the new folder wherever it named an old one or what is below it; how
    many texts were changed."""
    moves = {old: new for old, new in moves.items() if old != new}
    said = [form for old in moves for form in (_in_json(str(old)), quote(str(old)), str(old))]
    if not said:
        return 0
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.create_function("moved", 1, _mover(moves), deterministic=True)
        return sum(
            connection.execute(_update(table, column, len(said)), said).rowcount
            for table, column in _columns(connection)
        )


def _update(table: str, column: str, n: int) -> str:
    """The statement for a column; looking for n words first is much quicker than changing none."""
    names = " OR ".join([f'instr("{column}", ?)'] * n)
    return (
        f'UPDATE "{table}" SET "{column}" = moved("{column}") '
        f'WHERE typeof("{column}") = \'text\' AND ({names}) AND moved("{column}") <> "{column}"'
    )


def _columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return [
        (table, column)
        for (table,) in tables
        if not table.startswith("sqlite_")
        for _, column, *_ in connection.execute(f'PRAGMA table_info("{table}")').fetchall()
    ]


def _mover(moves: Mapping[Path, Path]) -> Callable[[str], str]:
    """A function from text to text; /a/var is not found in /a/var2, nor in /b/a/var."""
    ways = {}
    for old, new in sorted(moves.items(), key=lambda move: -len(str(move[0]))):
        ways["file://" + quote(str(old))] = "file://" + quote(str(new))
        ways[_in_json(str(old))] = _in_json(str(new))
        ways[str(old)] = str(new)
    either = "|".join(re.escape(text) for text in ways)  # the first that fits is taken
    found = re.compile(rf"(?<![\w.%-])(?:{either})(?![\w.%-])")

    def moved(text: str) -> str:
        return found.sub(lambda match: ways[match[0]], text)

    return moved


def _in_json(text: str) -> str:
    return json.dumps(text)[1:-1]
