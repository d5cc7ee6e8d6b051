"""Judge a study's best model, and make it the champion if the gate lets it pass."""

import argparse

from studies.commands.arguments import alias, settings_from, share
from studies.promotion.contender import find_candidate
from studies.promotion.decision import REFUSED
from studies.promotion.gate import Limits
from studies.promotion.promote import promote

DEFAULTS = Limits()
NOT_PASSED = 1  # exit status


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make promote` takes."""
    command.add_argument("study", help="its name, with what sets it apart: giaem-phantom")
    command.add_argument("--model", help="models:/<name>/<version> instead of a study's candidate")
    command.add_argument("--alias", type=alias, default="champion")
    for name, value in DEFAULTS._asdict().items():
        option = name.replace("_", "-")
        command.add_argument(f"--{option}", type=share(name.upper()), default=value)
    command.add_argument("--force", default="", help="the reason to override the gate")


def main(options: argparse.Namespace) -> int:
    """Decide; the exit status is 1 for a refusal."""
    settings = settings_from(options)
    model = options.model or find_candidate(settings.tracking_uri, options.study)
    limits = Limits(*(getattr(options, name) for name in Limits._fields))
    decision = promote(
        settings, model, alias=options.alias, limits=limits, force=options.force.strip()
    )
    return NOT_PASSED if decision and decision.outcome == REFUSED else 0
