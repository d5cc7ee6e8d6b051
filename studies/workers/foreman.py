"""What of a study runs on a Ray cluster: a foreman, and the workers as its tasks.

The foreman is a small actor that lives on when the program that began the study dies. It imports
nothing of the study, whose networks and libraries take a gigabyte; its tasks do.
"""

import io
from contextlib import redirect_stderr
from typing import Any

from studies.commands import INTERRUPTED


class Foreman:
    """The workers of one study."""

    def __init__(self, arguments: list[str], n_workers: int, task: dict[str, Any]):
        import ray

        self._ray = ray
        worker = self._ray.remote(**task)(work_as_task)
        self._tasks = [worker.remote(arguments) for _ in range(n_workers)]

    def n_working(self) -> int:
        """How many tasks have not ended."""
        _, rest = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0)
        return len(rest)

    def cancel(self) -> None:
        """Ctrl-C for those that run; those that wait never begin."""
        for task in self._tasks:
            self._ray.cancel(task)

    def complaints(self) -> list[str]:
        """What those have said that failed, once all have ended."""
        said = []
        for task in self._tasks:
            try:
                status, text = self._ray.get(task)
            except self._ray.exceptions.TaskCancelledError:
                continue
            except self._ray.exceptions.RayError as error:
                said.append(f"A worker was lost: {str(error).strip().splitlines()[0]}")
            else:
                said += [text] if status not in (0, INTERRUPTED) else []
        return said

    def go(self) -> None:
        """Leave the cluster."""
        self._ray.actor.exit_actor()


def work_as_task(arguments: list[str]) -> tuple[int, str]:
    """A worker's exit status, and the sentence that it ended with if that is not 0."""
    from studies.__main__ import main

    with redirect_stderr(io.StringIO()) as said:
        status = main(arguments)
    lines = said.getvalue().strip().splitlines()
    return status, lines[-1] if status and lines else ""
