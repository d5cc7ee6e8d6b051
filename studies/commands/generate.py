"""Make synthetic images of each class."""

import argparse

from studies.commands.arguments import add_split, add_surroundings, count, settings_from
from studies.generate import N_IMAGES, generate
from training.data.splits import SHARES


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make generate` takes."""
    command.add_argument("generator", help="a generator's name: vae or gan")
    command.add_argument("--n", type=count("N", 1), default=N_IMAGES, help="of each class")
    command.add_argument(
        "--for",
        dest="scheme",
        default="classifier",
        choices=list(SHARES),
        help="whose training split is learned from",
    )
    add_split(command)
    add_surroundings(command)


def main(options: argparse.Namespace) -> int:
    """Make them; the exit status."""
    generate(settings_from(options), n=options.n, scheme=options.scheme)
    return 0
