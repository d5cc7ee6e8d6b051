"""Hold studies against one another: searches, winners, the images they disagree on."""

import argparse

from studies.commands.arguments import settings_from, switch
from studies.compare.comparison import compare, compare_anyway


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make compare` takes."""
    command.add_argument("studies", nargs="+", help="names, slugs or patterns of studies")
    command.add_argument(
        "--anyway", type=switch("ANYWAY"), default=False, help="1: on different test images too"
    )


def main(options: argparse.Namespace) -> int:
    """Compare them; the exit status."""
    words = " ".join(options.studies).replace(",", " ").split()
    how = compare_anyway if options.anyway else compare
    how(words, settings_from(options))
    return 0
