"""Which studies are meant by what is written after STUDIES=.

Knows the names in a storage and nothing of what the studies found.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from studies.settings import slug
from studies.study import StudyError, known_studies

WILD = "*?["  # any of these makes a word a pattern
EXAMPLE = '`make compare STUDIES="giaem dbscan"`'


def choose(words: Iterable[str], known: dict[str, dict[str, Any]]) -> list[str]:
    """The full names of the studies that are meant, each once, in the order they are named.

    A word is a slug, a pattern of slugs, or the plain name of a study of which there is one.
    `known` holds the specification of each study by its full name.
    """
    words = list(words)
    if not known:
        raise StudyError("There is no study to compare yet: make two with `make study STUDY=`.")
    if not words:
        raise StudyError(f"STUDIES must name two studies, as in {EXAMPLE}. {_listed(known)}")
    chosen = list(dict.fromkeys(name for word in words for name in _meant(word, known)))
    if len(chosen) < 2:
        raise StudyError(
            f"STUDIES='{' '.join(words)}' names one study, {slug(chosen[0])}, and a comparison "
            f"needs two. {_listed(known)}"
        )
    return chosen


def _meant(word: str, known: dict[str, dict[str, Any]]) -> list[str]:
    """The studies that one word stands for."""
    if any(letter in word for letter in WILD):
        return _matching(word, known)
    if exact := [name for name in known if word in (name, slug(name))]:
        return _the_only(word, exact)
    if plain := [name for name, told in known.items() if told["study"] == word]:
        return _the_only(word, plain)
    if word in known_studies():
        raise StudyError(
            f"The study '{word}' was not run here: `make study STUDY={word}`. {_listed(known)}"
        )
    raise StudyError(f"There is no study '{word}'. {_listed(known)}")


def _matching(pattern: str, known: dict[str, dict[str, Any]]) -> list[str]:
    found = sorted(name for name in known if fnmatchcase(slug(name), pattern))
    if not found:
        raise StudyError(f"No study matches '{pattern}'. {_listed(known)}")
    return found


def _the_only(word: str, found: list[str]) -> list[str]:
    if len(found) > 1:
        slugs = [slug(name) for name in sorted(found)]
        raise StudyError(
            f"There are {len(found)} studies of '{word}': name one of {', '.join(slugs)}, "
            f"or all with '{word}*'."
        )
    return found


def _listed(known: Iterable[str]) -> str:
    return f"The studies here are: {', '.join(sorted(slug(name) for name in known))}."


def shortened(names: list[str]) -> dict[str, str]:
    """Full names without what stands in the brackets of all of them: `giaem (phantom, seed 1)`
    beside `dbscan (phantom)` is `giaem (seed 1)`; as they are where two would read the same.
    """
    split = {name: _marks(name) for name in names}
    common = set.intersection(*(set(marks) for _, marks in split.values()))
    short = {}
    for name, (plain, marks) in split.items():
        own = [mark for mark in marks if mark not in common]
        short[name] = f"{plain} ({', '.join(own)})" if own else plain
    return short if len(set(short.values())) == len(names) else {name: name for name in names}


def common_marks(names: list[str]) -> list[str]:
    """What stands in the brackets of all of them, in the order of the first."""
    marks = [_marks(name)[1] for name in names]
    return [mark for mark in marks[0] if all(mark in others for others in marks)]


def _marks(name: str) -> tuple[str, list[str]]:
    """`giaem (phantom, seed 1)` -> `giaem` and its two marks."""
    plain, bracket, marks = name.removesuffix(")").partition(" (")
    return (plain, marks.split(", ")) if bracket else (name, [])
