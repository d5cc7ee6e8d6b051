"""Ask a registered model about images: files, folders, patterns."""

import argparse
from pathlib import Path

from studies.commands.arguments import settings_from, switch
from studies.settings import CHAMPION
from studies.use.predict import Wish, print_json, print_table
from studies.use.slices import ALL, MIDDLE


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What `make predict` takes."""
    command.add_argument("images", nargs="*", help="files, folders, patterns; DICOM and NIfTI too")
    command.add_argument("--model", default=CHAMPION, help=f"else {CHAMPION}")
    command.add_argument(
        "--json", nargs="?", const=True, default=False, type=switch("JSON"), help="and nothing else"
    )
    command.add_argument("--csv", type=Path, metavar="FILE", help="a row an image")
    command.add_argument(
        "--overlay", nargs="?", const="", metavar="FOLDER", help="pictures of the suspected region"
    )
    command.add_argument(
        "--slice", type=slices, default=MIDDLE, help="of volumes: middle, all or a number from 0 on"
    )


def main(options: argparse.Namespace) -> int:
    """Ask; the exit status, 1 where some images could not be read."""
    settings = settings_from(options)
    overlays = Path(options.overlay or settings.root / "overlays")
    wish = Wish(options.slice, options.csv, None if options.overlay is None else overlays)
    ask = print_json if options.json else print_table
    return ask(options.images, options.model, wish, settings)


def slices(text: str) -> str | int:
    """A converter for SLICE."""
    if text in (MIDDLE, ALL):
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"SLICE must be {MIDDLE}, {ALL} or a number from 0 on, got '{text}'."
        )
    return int(text)
