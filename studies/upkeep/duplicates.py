"""The same weights in two runs: workers that finish at the same time both find no holder.

Owns which of them keeps the weights, and the order in which the others come to link to it.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mlflow_server.upkeep import HeldRun, Holdings, Upkeep, folder_size, local_folder
from studies.record import HOLDER, WEIGHTS_OF
from studies.upkeep.needs import Needs, links_of, weights_in
from training.kept_fit import WEIGHTS


class Duplicate(NamedTuple):
    """A run whose weights another one holds as well, byte for byte."""

    network: str
    run: HeldRun
    holder: HeldRun
    linked: list[HeldRun]  # to the first
    size: int


def find_duplicates(holdings: Holdings, needs: Needs) -> list[Duplicate]:
    """Among the runs that keep their files here; none while a study runs."""
    if needs.running:
        return []
    held = defaultdict(list)
    for identity in sorted(needs.runs):
        run = holdings.runs[identity]
        for network, key in weights_in(run).items():
            held[network, key].append(run)
    return [
        found
        for (network, _), runs in held.items()
        if len(runs) > 1
        for found in _among(network, runs, holdings)
    ]


def _among(network: str, runs: list[HeldRun], holdings: Holdings) -> Iterator[Duplicate]:
    linked = {
        run.id: [
            one
            for one in holdings.runs.values()
            if links_of(one).get(network) == run.id and one.id != run.id
        ]
        for run in runs
    }
    # one that is not deleted, and that most link to
    holder, *others = sorted(runs, key=lambda run: (run.is_deleted, -len(linked[run.id])))
    digest = _digest(holder, network)
    for run in others:
        if digest is not None and _digest(run, network) == digest:
            size = folder_size(local_folder(run.folder) / network)
            yield Duplicate(network, run, holder, linked[run.id], size)


def join(upkeep: Upkeep, duplicate: Duplicate) -> None:
    """Have all link to one holder, and then remove the other's weights."""
    tag = HOLDER.format(duplicate.network)
    for run in [*duplicate.linked, duplicate.run]:
        upkeep.link(run, tag, duplicate.holder.id)
    upkeep.drop(duplicate.run, WEIGHTS_OF.format(duplicate.network), duplicate.network)


def _digest(run: HeldRun, network: str) -> str | None:
    folder = local_folder(run.folder)
    weights: Path | None = folder / network / WEIGHTS if folder else None
    if weights is None or not weights.exists():
        return None
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
