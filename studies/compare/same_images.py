"""Which studies were tested on the same images, and what sets the others' images apart.

Answers to different images cannot be paired, and a search on one validation split says nothing
beside a search on another: such studies are compared only where that is asked for.
"""

from itertools import combinations
from typing import NamedTuple

from studies.compare.contestants import Contestant, read_floors
from studies.study import StudyError
from training.floors import Scored


class TestSet(NamedTuple):
    """Studies whose winners answered the same test images, and the floors on these."""

    contestants: list[Contestant]
    floors: list[Scored]

    @property
    def files(self) -> tuple[str, ...]:
        """The images, sorted."""
        return self.contestants[0].answered.files

    @property
    def scored(self) -> list[Scored]:
        """The winners' answers, row i of all the same image."""
        return [contestant.answered.scored for contestant in self.contestants]


def difference(one: Contestant, other: Contestant) -> str | None:
    """What sets the images of two studies apart, as the end of a sentence; None where nothing."""
    if one.data["digest"] != other.data["digest"]:
        return _other_data(one.data, other.data)
    if one.answered and other.answered:
        if one.answered.files == other.answered.files:
            return None
        shared = set(one.answered.files) & set(other.answered.files)
        counts = {str(len(each.answered.files)): None for each in (one, other)}
        of = " and ".join(counts)
        return f"only {len(shared)} of {of} test files are the same{_how(one, other)}"
    if _cut(one) != _cut(other):
        return f"their images were split differently{_how(one, other)}"
    return None


def _other_data(one: dict, other: dict) -> str:
    if one["name"] != other["name"]:
        return f"one is of {one['name']}, the other of {other['name']}"
    if one["preprocess"] != other["preprocess"]:
        return f"they were prepared with PREPROCESS={one['preprocess']} and {other['preprocess']}"
    return f"{one['name']} has changed between them (digests {one['digest']}, {other['digest']})"


def _how(one: Contestant, other: Contestant) -> str:
    """What the two splits were made with where it differs: ` (seed 0; seed 1)`."""
    pairs = zip(_cut(one), _cut(other), strict=True)
    sides = zip(*(pair for pair in pairs if pair[0] != pair[1]), strict=True)
    text = "; ".join(", ".join(side) for side in sides)
    return f" ({text})" if text else ""


def _cut(contestant: Contestant) -> tuple[str, ...]:
    """How a study's images were split."""
    data = contestant.data
    return f"{data['split']} split", f"that of a {contestant.scheme}", f"seed {data['seed']}"


def refuse_different(contestants: list[Contestant]) -> None:
    """Raise where two studies were tested on different images."""
    for one, other in combinations(contestants, 2):
        if what := difference(one, other):
            raise StudyError(
                f"{one.slug} and {other.slug} have different test images: {what}. Compare studies "
                "of one split, or add ANYWAY=1 to see these side by side without paired "
                "differences."
            )


def find_test_sets(contestants: list[Contestant]) -> list[TestSet]:
    """The sets of test images that were answered, in the order of the studies."""
    sets: list[list[Contestant]] = []
    for contestant in contestants:
        if contestant.answered is None:
            continue
        home = next((found for found in sets if difference(found[0], contestant) is None), None)
        if home is None:
            sets.append([contestant])
        else:
            home.append(contestant)
    return [TestSet(found, _floors(found)) for found in sets]


def _floors(contestants: list[Contestant]) -> list[Scored]:
    """The floors that one of the studies has kept; they are the same for all."""
    kept = (read_floors(contestant.kept) for contestant in contestants)
    return next((floors for floors in kept if floors), [])
