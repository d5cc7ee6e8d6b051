"""The command line: `python -m studies <command>`.

It finds the command among the modules of `studies.commands`, and turns what is wrong with the input
into one sentence and exit status 2.
"""

import argparse
import importlib
import logging
import pkgutil
import re
import sys
import warnings
from types import ModuleType
from typing import NoReturn

import optuna
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from mlflow_server import TrackingError
from studies import commands
from studies.commands import INTERRUPTED
from studies.study import StudyError, first_line
from training.allocator import keep_freed_memory
from training.cache import CacheError
from training.data import DataError
from training.device import DeviceError, use_own_cores
from training.loop import TrainingError

INPUT_ERRORS = (StudyError, DataError, DeviceError, TrainingError, CacheError, TrackingError)
BAD_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser(arguments).parse_args(arguments)
    quiet()
    keep_freed_memory()
    use_own_cores()
    try:
        return options.main(options)
    except INPUT_ERRORS as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except (StorageInternalError, OperationalError) as error:
        cause = error if isinstance(error, OperationalError) else error.__cause__ or error
        reason = str(cause).splitlines()[0]
        print(
            f"Optuna's storage does not answer ({reason}). Is the disk full, or the database away? "
            "What had ended is kept: the same command goes on from there.",
            file=sys.stderr,
        )
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


class Parser(argparse.ArgumentParser):
    """An argument parser that says what is wrong in one line, without its usage."""

    def error(self, message: str) -> NoReturn:
        """End with the sentence alone."""
        self.exit(BAD_INPUT, re.sub(r"^argument [^:]*: (?=[A-Z])", "", message) + "\n")


def parser(arguments: list[str]) -> argparse.ArgumentParser:
    """The arguments of the command that is called; of all where none is, as for `--help`."""
    top = Parser(prog="python -m studies", description=first_line(__doc__))
    subparsers = top.add_subparsers(dest="command", required=True, metavar="command")
    for name, module in called(arguments).items():
        text = first_line(module.__doc__)
        command = subparsers.add_parser(name, help=text, description=text)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    return top


def called(arguments: list[str]) -> dict[str, ModuleType]:
    """The module of the command that is called, by its name: others are not imported in vain."""
    names = [found.name for found in pkgutil.iter_modules(commands.__path__)]
    names.remove("arguments")
    chosen = [name for name in names if arguments[:1] == [name]]
    return {name: importlib.import_module(f"studies.commands.{name}") for name in chosen or names}


def quiet() -> None:
    """The libraries' own progress lines give way to ours."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # whoever reads along through a pipe sees each line
    sys.exit(main())
