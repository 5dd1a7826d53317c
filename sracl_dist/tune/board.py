"""The driver's view of a search: what comes next, what happened, and the progress line."""

import time
from typing import Any

from sracl_dist.config import Config
from sracl_dist.errors import ConfigError
from sracl_dist.observe import Progress, say
from sracl_dist.run_folder import StageFolder
from sracl_dist.tune.outputs import runnable, shown_values
from sracl_dist.tune.proposals import num_trials, propose
from sracl_dist.tune.records import CONFIG, Records, Status, Trial, place_of
from sracl_dist.tune.space import Space
from sracl_dist.tune.trial import Checkpoints

LABEL = "tune"
INTERVAL_S = 10.0


class Board:
    """Decides which trial is next and keeps the records; Ray Tune's callbacks speak to it, in one thread.

    Args:
        config: of the search.
        space: what varies.
        folder: of the search.
        records: the trials so far.
    """

    def __init__(self, config: Config, space: Space, folder: StageFolder, records: Records) -> None:
        self._config, self._space, self._folder, self.records = config, space, folder, records
        self._total = num_trials(config, space)
        self._training: set[int] = set()
        self._started = time.monotonic()
        self._was_over = False
        self._best_value = max((value for trial in records for value in trial.curve), default=float("-inf"))
        self._line: Progress | None = None

    @property
    def num_left(self) -> int:
        """Trials that this invocation has yet to start or to go on with."""
        done = sum(trial.is_done and trial.number < self._total for trial in self.records)
        return self._total - done - len(self._training)

    @property
    def num_training(self) -> int:
        """Trials that train now."""
        return len(self._training)

    @property
    def is_over(self) -> bool:
        """Whether the time is up; once it is, what ends has been cut short."""
        budget = self._config.tune.time_budget_s
        self._was_over = self._was_over or (budget is not None and time.monotonic() - self._started >= budget)
        return self._was_over

    def start(self) -> Trial:
        """The next trial: one that was interrupted before one that is new."""
        known = self.records.trials
        numbers = range(self._total)
        waiting = [number for number in numbers if number in known and not known[number].is_done]
        waiting += [number for number in numbers if number not in known]
        number = next(number for number in waiting if number not in self._training)
        trial = known.get(number)
        if trial is None:
            others = [other for other in self.records if other.number != number]
            trial = Trial(number=number, values=propose(self._config, self._space, number, others))
            self.records.write(trial)
            self._write_config(trial)
        self._training.add(number)
        self.tick()
        return trial

    def _write_config(self, trial: Trial) -> None:
        try:
            text = runnable(self._config, trial)
        except ConfigError:
            return  # the trial will say so itself
        self._folder.write_bytes(place_of(trial.number) + CONFIG, text.encode())

    def epoch(self, number: int, epoch: int, value: float, wall_s: float, *, is_last: bool) -> None:
        """A trial has finished an epoch."""
        trial = self.records.trials[number]
        trial.add(epoch, value, wall_s)
        if is_last:
            trial.status = "finished"
        self.records.write(trial)
        if value > self._best_value:
            self._best_value = value
            metric = self._config.train.metric
            say(f"{LABEL}: best {metric} {value:.4f} by trial {trial.id}, epoch {epoch}: {shown_values(trial.values)}")
        self.tick()

    def end(self, number: int) -> None:
        """A trial trains no more: it was at its end, was stopped, or is cut short by the time budget."""
        self._training.discard(number)
        trial = self.records.trials[number]
        if trial.status == "running" and not self._was_over:
            self._close(trial, "stopped")
        elif trial.is_done:
            Checkpoints(self._folder, number).forget_state()
        self.tick()

    def fail(self, number: int, reason: str) -> None:
        """A trial cannot go on."""
        self._training.discard(number)
        trial = self.records.trials[number]
        trial.reason = reason
        say(f"{LABEL}: trial {trial.id} failed: {reason.rstrip('.')} ({shown_values(trial.values)})")
        self._close(trial, "failed")

    def _close(self, trial: Trial, status: Status) -> None:
        trial.status = status
        self.records.write(trial)
        Checkpoints(self._folder, trial.number).forget_state()

    def tick(self) -> None:
        """Draw the progress line when its time has come."""
        total, done = self._epochs()
        if self._line is None:
            self._line = Progress(LABEL, total, "epochs", done=done, interval_s=INTERVAL_S)
        self._line.total = total
        self._line.update(done - self._line.done, **self._facts())

    def close(self) -> None:
        """End the progress line."""
        if self._line is not None:
            self._line.update(0, **self._facts())
            self._line.close()

    def _epochs(self) -> tuple[int, int]:
        """Epochs of the whole search as far as is known now, and those done; a stopped trial has no more to come."""
        mine = [trial for trial in self.records if trial.number < self._total]
        done = sum(len(trial.curve) for trial in mine)
        open_epochs = [self._config.train.epochs - len(trial.curve) for trial in mine if not trial.is_done]
        return done + sum(open_epochs) + self._config.train.epochs * (self._total - len(mine)), done

    def _facts(self) -> dict[str, Any]:
        records = self.records
        facts: dict[str, Any] = {
            "finished": f"{records.count('finished')}/{self._total}",
            "stopped": records.count("stopped"),
            "running": len(self._training),
        }
        if records.count("failed"):
            facts["failed"] = records.count("failed")
        if records.best is not None and records.best.best_value is not None:
            facts[f"best {self._config.train.metric}"] = f"{records.best.best_value:.4f}"
        return facts
