"""List the studies, a line each."""

import argparse

from studies.study import describe_studies


def add_arguments(command: argparse.ArgumentParser) -> None:
    """`make studies` takes none."""


def main(options: argparse.Namespace) -> int:
    """List them; the exit status."""
    print("\n".join(describe_studies()))
    return 0
