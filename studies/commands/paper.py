"""Fill the paper's Table 1, its rows on synthetic images too."""

import argparse

from studies.commands import INTERRUPTED
from studies.commands.arguments import add_split, add_surroundings, count, settings_from, switch
from studies.paper import make_paper
from studies.paper_effort import FULL, QUICK


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make paper` takes."""
    add_split(command)
    command.add_argument("--seeds", type=count("SEEDS", 1), help="how many, from --seed on")
    command.add_argument("--quick", type=switch("QUICK"), default=False, help="1: in minutes")
    add_surroundings(command)


def main(options: argparse.Namespace) -> int:
    """Fill it; the exit status."""
    effort = QUICK if options.quick else FULL
    return 0 if make_paper(settings_from(options), effort, options.seeds) else INTERRUPTED
