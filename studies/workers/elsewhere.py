"""Workers that somebody else starts: a SLURM array, a Kubernetes Job, another terminal."""

import shlex

import optuna

from studies.session import Session
from studies.storage import is_met
from studies.workers.call import worker_command


class Elsewhere:
    """Workers that are only waited for."""

    def __init__(self, session: Session, search: optuna.Study):
        self._search = search
        print(f"Workers join with: {shlex.join(['python', *worker_command(session)[1:]])}")

    def n_working(self) -> int:
        """Any number, until the budget is met."""
        return 0 if is_met(self._search) else 1

    def news(self) -> list[str]:
        """They say it elsewhere."""
        return []

    def stop(self) -> None:
        """They leave by themselves when the budget is met or withdrawn."""

    def complaints(self) -> list[str]:
        """They say it elsewhere."""
        return []
