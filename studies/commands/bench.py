"""Measure what is fast here beside what a user would otherwise write."""

import argparse
from pathlib import Path

from studies.bench.bench import FULL, PARTS, QUICK, make_bench
from studies.bench.page import as_json, as_markdown, write, write_between_marks
from studies.commands.arguments import add_split, add_surroundings, settings_from, switch

MISSED = 1


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make bench` takes."""
    command.add_argument("--quick", type=switch("QUICK"), default=False, help="1: less of each")
    command.add_argument("--part", choices=PARTS, help="the only one to measure")
    command.add_argument("--into", type=Path, help="a file that has the two marks for the tables")
    command.add_argument("--json", type=switch("JSON"), default=False, help="1: JSON, no tables")
    add_split(command)
    add_surroundings(command)


def main(options: argparse.Namespace) -> int:
    """Measure, say and write; 1 where a stated ratio is missed."""
    settings = settings_from(options)
    bench = make_bench(
        settings,
        QUICK if options.quick else FULL,
        (options.part,) if options.part else PARTS,
        say=(lambda text: None) if options.json else print,
    )
    page = write(bench, settings.root / "reports")
    if options.into:
        write_between_marks(bench, options.into)
    if options.json:
        print(as_json(bench))
    else:
        print(f"\n{as_markdown(bench)}\n\nReport: {page}")
        print("".join(f"Missed: {ratio.sentence()}\n" for ratio in bench.missed), end="")
    return MISSED if bench.missed else 0
