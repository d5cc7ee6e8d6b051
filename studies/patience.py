"""Waiting for a database that is away for a while: what was asked is asked again.

Owns which errors may pass, and for how long. Knows nothing of what is asked.
"""

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

PATIENCE = 180.0  # seconds; our choice: a server's restart, with room
AGAIN = 1.0  # seconds between two tries
STAYS = ("full", "no such", "readonly", "malformed", "not a database", "disk i/o")
log = logging.getLogger(__name__)


def patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """A storage's method that is tried again while its database does not answer."""

    @wraps(method)
    def asked(*arguments: Any, **keywords: Any) -> Any:
        until = None
        while True:
            try:
                return method(*arguments, **keywords)
            except (StorageInternalError, OperationalError) as error:
                until = until or time.monotonic() + PATIENCE
                if not may_pass(error) or time.monotonic() >= until:
                    error.was_waited_for = True  # by whoever calls this in turn: not once more
                    raise
                _tell(error)
                time.sleep(AGAIN)

    return asked


def may_pass(error: Exception) -> bool:
    """Whether the database may answer later: it is away or locked, and not full or broken."""
    if getattr(error, "was_waited_for", False):
        return False
    cause = error if isinstance(error, OperationalError) else error.__cause__
    text = str(cause).lower()
    return isinstance(cause, OperationalError) and not any(word in text for word in STAYS)


def _tell(error: Exception) -> None:
    reason = str(error.__cause__ or error).splitlines()[0]
    log.warning("Optuna's storage does not answer (%s): it is asked again.", reason)
