"""Put an archive of `make backup` in place, here or in another folder."""

import argparse
from pathlib import Path

from studies.commands.arguments import settings_from, switch
from studies.study import StudyError
from studies.upkeep.restore import restore


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make restore` takes."""
    command.add_argument("archive", help="a file that `make backup` wrote")
    command.add_argument("--into", type=Path, help="a folder; else VAR_DIR")
    command.add_argument(
        "--replace", type=switch("REPLACE"), default=False, help="1: keep what is there beside"
    )


def main(options: argparse.Namespace) -> int:
    """Restore; the exit status."""
    if not options.archive:
        raise StudyError("FROM must name an archive of `make backup`: `make restore FROM=`.")
    restore(settings_from(options), Path(options.archive), options.into, replace=options.replace)
    return 0
