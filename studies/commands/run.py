"""Search, conclude and publish one study."""

import argparse

from studies.commands import INTERRUPTED
from studies.commands.arguments import (
    add_gpu_share,
    add_label,
    add_study,
    add_surroundings,
    add_training_images,
    count,
    seconds,
    settings_from,
)
from studies.runner import run, run_trials
from studies.study import find_study
from studies.workers.watch import check_crew, has_crew, run_with_workers


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make study` takes."""
    add_study(command)
    command.add_argument("--trials", type=count("TRIALS", 1), help="how many to add")
    command.add_argument("--timeout", type=seconds, help="seconds after which none begins")
    add_training_images(command)
    add_surroundings(command)
    add_label(command)
    command.add_argument("--workers", type=count("WORKERS", 1), default=1, help="how many")
    command.add_argument("--engine", default="local", help="local, ray or elsewhere")
    add_gpu_share(command)


def main(options: argparse.Namespace) -> int:
    """Run it; the exit status."""
    study, settings = find_study(options.study), settings_from(options)
    check_crew(settings)
    with_trials = run_with_workers if has_crew(settings) else run_trials
    return 0 if run(study, settings, with_trials) else INTERRUPTED
