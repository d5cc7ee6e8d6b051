"""What a person sees while a study runs: a live display on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from rich.console import Console
from rich.live import Live
from rich.markdown import Markdown
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from studies.space import Params

RECENT = 8
# What is said of an epoch; a generator's class stands before the name.
EPOCH_METRICS = ("train_loss", "val_loss", "val_auroc", "train_loss_generator", "val_kid")


@dataclass(frozen=True)
class TrialLine:
    """One finished trial as it is shown; `value` is None where there is none."""

    number: int
    state: str
    params: Params
    value: float | None
    is_feasible: bool
    is_best: bool

    def outcome(self) -> str:
        """The objective, or why there is none."""
        if self.value is None:
            return self.state
        return f"{self.value:.4f}" + ("" if self.is_feasible else " infeasible")


@dataclass
class Display:
    """Counts trials, keeps the best, and writes a line a trial; the base of the live display."""

    metric: str
    total: int
    console: Console
    done: int = 0
    best: TrialLine | None = None
    ended: list[float] = field(default_factory=lambda: [time.monotonic()])  # when trials did

    def say(self, text: str) -> None:
        """A line that is not about a trial."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_epoch(self, trial: int, epoch: int, metrics: dict[str, float]) -> None:
        """An epoch of a trial that trains."""
        self.say(f"  trial {trial} epoch {epoch}: {_epoch_text(metrics)}")

    def on_trial(self, line: TrialLine) -> None:
        """A finished trial."""
        self._count(line)
        best = f"best {self.best.value:.4f} (trial {self.best.number})" if self.best else "no best"
        self.say(
            f"trial {line.number}  [{self.done}/{self.total}]  {self.metric} {line.outcome()}  "
            f"{best}  {format_params(line.params)}  {format_seconds(self.left())} left"
        )

    def left(self) -> float:
        """Seconds that the remaining trials take at the median pace of the last: one that trains
        costs a hundred that do not."""
        recent = self.ended[-RECENT - 1 :]
        paces = [end - start for start, end in pairwise(recent)]
        return median(paces or [0.0]) * max(self.total - self.done, 0)

    def _count(self, line: TrialLine) -> None:
        self.done += 1
        self.ended.append(time.monotonic())
        if line.is_best:
            self.best = line


class LiveDisplay(Display):
    """A progress bar with the last trials and the best one, redrawn in place."""

    def attach(self) -> Live:
        """The rich display to enter for as long as trials run."""
        self._recent: list[TrialLine] = []
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
        )
        self._task = self._bar.add_task("trials", total=self.total, left="?")
        self._live = Live(self._draw(), console=self.console, refresh_per_second=4)
        return self._live

    def on_epoch(self, trial: int, epoch: int, metrics: dict[str, float]) -> None:
        self._bar.update(self._task, description=f"trial {trial} trains: epoch {epoch}")
        self._live.update(self._draw())

    def on_trial(self, line: TrialLine) -> None:
        self._count(line)
        self._recent = [*self._recent, line][-RECENT:]
        self._bar.update(
            self._task,
            completed=self.done,
            description="trials",
            left=format_seconds(self.left()),
        )
        self._live.update(self._draw())

    def _draw(self) -> Table:
        table = Table.grid()
        table.add_row(self._bar)
        trials = Table("trial", self.metric, "parameters", box=None, padding=(0, 2))
        for line in self._recent:
            trials.add_row(str(line.number), line.outcome(), format_params(line.params))
        if self.best:
            best = self.best
            trials.add_section()
            trials.add_row(
                f"best {best.number}",
                best.outcome(),
                format_params(best.params),
                style="bold green",
            )
        table.add_row(trials)
        return table


@contextmanager
def show_progress(metric: str, total: int) -> Iterator[Display]:
    """The display that suits where the output goes."""
    console = Console()
    if not console.is_terminal:
        yield Display(metric, total, console)
        return
    display = LiveDisplay(metric, total, console)
    with display.attach():
        yield display


def show_markdown(text: str) -> None:
    """A summary as it reads best: laid out on a terminal, as it is elsewhere."""
    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        print(text)


def format_params(params: Params) -> str:
    """`alpha=0.12 anomaly_threshold=0.31`."""
    return " ".join(
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )


def format_seconds(seconds: float) -> str:
    """`1:02:03`, or `2:03` under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _epoch_text(metrics: dict[str, float]) -> str:
    shown = [name for name in metrics if name.endswith(EPOCH_METRICS)]
    return ", ".join(f"{name} {metrics[name]:.4g}" for name in shown)
