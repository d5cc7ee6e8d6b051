"""One trial: suggest, fit, score, and leave behind what MLflow is to be told.

It owns how a trial ends: complete, pruned, failed or interrupted. It knows nothing of the trials
before it but the best value.
"""

import json
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from optuna import Trial, TrialPruned

from studies.candidate import as_predictor, example_grid
from studies.progress import Display
from studies.record import ARTIFACTS, FAILED, HEAD_FOLDER, INTERRUPTED, MODEL, REPORTED, Record
from studies.space import suggest
from studies.storage import WORKER, this_worker
from studies.study import Candidate, Lab, News, Study
from training.cache import CacheError


class TrialFailed(RuntimeError):
    """A trial's own error; the study goes on."""


@dataclass
class TrialRunner:
    """The objective that Optuna calls; `best` is the best feasible value so far."""

    study: Study
    lab: Lab
    folder: Path
    display: Display
    record: Record | None
    best: float | None
    tags: dict[str, str] = field(default_factory=dict)

    def __call__(self, trial: Trial) -> float:
        """The objective's value; raises TrialPruned, TrialFailed, or what ends the study."""
        trial.set_user_attr(WORKER, this_worker())
        report = {"tags": dict(self.tags), "history": []}
        try:
            return self._run(trial, report)
        except KeyboardInterrupt:
            trial.set_user_attr(INTERRUPTED, "stopped by hand")
            raise
        except (TrialPruned, CacheError):
            raise
        except Exception as error:
            trial.set_user_attr(FAILED, f"{type(error).__name__}: {error}")
            self._write(trial, "traceback.txt", traceback.format_exc())
            raise TrialFailed(str(error)) from error
        finally:
            trial.set_user_attr(REPORTED, json.dumps(report))

    def _run(self, trial: Trial, report: dict) -> float:
        params = suggest(trial, self.study.space)
        candidate = self.study.fit(params, self.lab, self._news(trial, report))
        metrics = self.study.score(candidate, self.lab)
        for constraint in self.study.constraints:
            trial.set_constraint(constraint.metric, constraint.violation(metrics))
        report["metrics"] = metrics
        report["detector"] = candidate.detector.key
        value = metrics[self.study.metric]
        feasible = self.study.is_feasible(metrics)
        is_best = feasible and self.study.is_better(value, self.best)
        if is_best:
            self.best = value
        report["tags"] |= {"feasible": str(feasible).lower()}
        is_new = is_best or "trained" in report["tags"]
        self._keep(trial, candidate, draw=is_new, model=is_best)
        return value

    def _news(self, trial: Trial, report: dict) -> News:
        started_ms = round(time.time() * 1000)

        def on_train() -> None:
            report["tags"]["trained"] = "true"
            if self.record:
                self.record.begin_training(trial.number, started_ms)

        def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
            report["history"].append(metrics)
            self.display.on_epoch(trial.number, epoch, metrics)
            if self.record:
                self.record.on_epoch(trial.number, epoch, metrics)
            if self.study.reported:
                trial.report(metrics[self.study.reported], epoch)
                if trial.should_prune():
                    raise TrialPruned(f"behind the others at epoch {epoch}")

        return News(on_train, on_epoch)

    def _keep(self, trial: Trial, candidate: Candidate, *, draw: bool, model: bool) -> None:
        """The head always; samples where there is something new to see; a model of the best."""
        folder = self.folder / str(trial.number)
        predictor = as_predictor(candidate, self.lab)
        predictor.save_head(folder / ARTIFACTS / HEAD_FOLDER)
        if draw:
            maps = self.lab.validation_maps(candidate.detector)
            grid = example_grid(candidate, self.lab, self.lab.splits.val, maps)
            grid.save(folder / ARTIFACTS / "validation_samples.png")
        if model:
            predictor.save(folder / MODEL)

    def _write(self, trial: Trial, name: str, text: str) -> None:
        folder = self.folder / str(trial.number) / ARTIFACTS
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
