"""The way of a study's candidate to the champion, and back.

Owns the order of things: what is up, who has the alias, the gate, the decision, and only then the
alias. The rules are the gate's, the memory is the history's.
"""

import getpass
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock, Timeout

from mlflow_server import Tracking
from mlflow_server.registry import (
    Version,
    add_version,
    aliased,
    annotate,
    fetch_model,
    find_version,
    set_alias,
)
from studies.progress import show_markdown
from studies.promotion.contender import data_facts, facts_of, metrics_of, read_kept
from studies.promotion.decision import FORCED, PROMOTED, REFUSED, ROLLED_BACK, Decision
from studies.promotion.gate import Check, Limits, judge
from studies.promotion.history import Entry, History, holders
from studies.provenance import read_commit
from studies.settings import CHAMPIONS, Settings
from studies.study import StudyError

EVIDENCE = "promotion_evidence"  # tag of a version: the decision as JSON
OUTCOME = "promotion"  # tag of a version: what was decided last


@dataclass(frozen=True)
class Registry:
    """Where decisions are made: one tracking address, with its history."""

    tracking: Tracking
    history: History
    root: Path

    @property
    def uri(self) -> str:
        """The tracking server's address."""
        return self.tracking.uri

    def holder(self, alias: str) -> Version | None:
        """The version of `tumor-detector` that has the alias."""
        if CHAMPIONS not in aliased(self.uri, alias):
            return None
        return find_version(self.uri, f"models:/{CHAMPIONS}@{alias}")


def open_registry(settings: Settings) -> Registry:
    """The registry and history that the settings name."""
    tracking = Tracking(settings.tracking_uri, settings.artifact_root)
    return Registry(tracking, History(tracking), settings.root)


def promote(
    settings: Settings, model_uri: str, *, alias: str, limits: Limits, force: str = ""
) -> Decision | None:
    """Judge a model and, if the gate lets it pass or a reason forces it, make it the champion.

    None where it is the champion already: then there is nothing to decide.
    """
    registry = open_registry(settings)
    version = find_version(registry.uri, model_uri)
    if version.tags.get("kind") == "generator":
        raise StudyError(f"{version.uri} makes images and tells no tumours: it cannot be promoted.")
    with one_at_a_time(settings.root):
        entries = registry.history.entries()
        holder = registry.holder(alias)
        if holder and holder.model_uri == version.model_uri:
            print(f"{version.uri} is {alias} already: {holder.uri}.")
            return None
        check_files(registry, version)
        decision = decide(registry, version, holder, alias=alias, limits=limits, force=force)
        decided = [entry.decision for entry in entries]
        facts = facts_of(registry.tracking, version, limits, decided)
        decision = replace(decision, facts=facts)
        carried_out = carry_out(registry, decision, version, entries)
    tell(carried_out)
    return carried_out


def rollback(settings: Settings, *, alias: str, why: str) -> Decision:
    """Give the alias back to the version that had it before."""
    registry = open_registry(settings)
    with one_at_a_time(settings.root):
        entries = registry.history.entries()
        holder = registry.holder(alias)
        now = holder.uri if holder else None
        earlier = [uri for uri in holders(entries, alias) if uri != now]
        if not earlier:
            raise StudyError(
                f"There is no {alias} before {now or 'the first'} to go back to: `make history` "
                "shows what was decided."
            )
        version = find_version(registry.uri, earlier[-1])
        check_files(registry, version)
        decision = Decision(
            outcome=ROLLED_BACK,
            alias=alias,
            model=version.uri,
            before=now,
            after=version.uri,
            why=why,
            **signature(),
            facts=data_facts(version),
            previous=entries[-1].decision.digest(),
        )
        run_id = registry.history.begin(decision, len(entries) + 1)
        set_alias(registry.uri, version.name, alias, version.number)
        registry.history.finish(run_id, decision)
    tell(decision)
    return decision


def decide(
    registry: Registry,
    version: Version,
    holder: Version | None,
    *,
    alias: str,
    limits: Limits,
    force: str,
) -> Decision:
    """What the gate says of a version beside the one that has the alias; nothing is changed."""
    contender = read_kept(registry.tracking, version)
    champion = read_kept(registry.tracking, holder) if holder else None
    if contender is None:
        found = f"none are kept with {version.uri}: run its study once more, which concludes it"
        checks = [Check("its answers on test are known", False, found)]
    elif holder and champion is None:
        found = f"none are kept with {holder.uri}, so that nothing can be compared with it"
        checks = [
            *judge(contender, None, limits),
            Check("the champion's answers on test are known", False, found),
        ]
    else:
        checks = judge(contender, champion, limits)
    passed = all(check.passed for check in checks)
    return Decision(
        outcome=PROMOTED if passed else FORCED if force else REFUSED,
        alias=alias,
        model=version.uri,
        before=holder.uri if holder else None,
        after=None,
        why=force,
        **signature(),
        facts={},
        metrics=metrics_of(contender) if contender else {},
        checks=checks,
    )


def carry_out(
    registry: Registry, decision: Decision, version: Version, entries: list[Entry]
) -> Decision:
    """Write the decision down, and let the alias follow it."""
    passed = decision.outcome != REFUSED
    after = champion_version(registry, version) if passed else None
    decision = replace(
        decision,
        after=after.uri if after else decision.before,
        previous=entries[-1].decision.digest() if entries else None,
    )
    run_id = registry.history.begin(decision, len(entries) + 1)
    evidence = {OUTCOME: f"{decision.headline()}, {decision.when}", EVIDENCE: compact(decision)}
    annotate(registry.uri, version, tags=evidence)
    if after:
        annotate(registry.uri, after, tags=evidence, description=decision.as_markdown())
        set_alias(registry.uri, after.name, decision.alias, after.number)
    registry.history.finish(run_id, decision)
    return decision


def champion_version(registry: Registry, version: Version) -> Version:
    """The version's model as a version of `tumor-detector`, where it is once."""
    tags = {name: text for name, text in version.tags.items() if name not in (OUTCOME, EVIDENCE)}
    number = add_version(
        registry.uri,
        version.model_uri,
        CHAMPIONS,
        tags={**tags, "promoted_from": version.uri},
        description=version.description,
    )
    return find_version(registry.uri, f"models:/{CHAMPIONS}/{number}")


def check_files(registry: Registry, version: Version) -> None:
    """Raise TrackingError where a version's files are not there or not what they were."""
    with TemporaryDirectory() as scratch:
        fetch_model(registry.uri, version.uri, Path(scratch))


def signature() -> dict[str, str]:
    """Who decides, when, and with which code."""
    who = os.environ.get("MLFLOW_TRACKING_USERNAME") or getpass.getuser()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"who": who, "when": when, "commit": read_commit().hash}


def compact(decision: Decision) -> str:
    """The evidence as JSON for a tag."""
    return json.dumps(json.loads(decision.as_json()), separators=(",", ":"))


def tell(decision: Decision) -> None:
    """Print the evidence."""
    show_markdown(decision.as_markdown())
    if decision.outcome == REFUSED:
        print('Refused. FORCE="<reason>" overrides the gate, and the reason is recorded.')


@contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Two decisions at once would both follow the same one."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / "promotion.lock", timeout=30):
            yield
    except Timeout as error:
        raise StudyError("Another promotion is being decided here: try again after it.") from error
