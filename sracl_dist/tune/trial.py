"""One trial: the training loop in the trial's own processes, with a checkpoint after every epoch.

It knows no Ray Tune; the caller gives it the place of its process and a function that is told of every epoch.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sracl_dist.config import Config
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.train.loop import Trainer, fit, is_finished
from sracl_dist.train.start import start_trainer
from sracl_dist.train.state import DESCRIPTION, ENCODER, WEIGHTS, Progress
from sracl_dist.train.worker import Worker
from sracl_dist.tune.records import BEST, CURVE, FOLDER, place_of

SLOTS = ("last-0/", "last-1/")
"""Epochs take turns, so that one whole checkpoint is there while the other is written."""

Report = Callable[[Progress, bool], None]
"""Told of an epoch, and whether it was the last one; it may not return, where the trial is stopped."""


def train_trial(
    config: Config,
    run: RunFolder,
    number: int,
    worker: Worker,
    num_told: int,
    report: Report,
    *,
    workers_here: int = 1,
) -> None:
    """Train, or go on from the last checkpoint; every worker of the trial calls it.

    Args:
        config: of this trial.
        run: the run whose tables are read and whose search this is.
        number: of the trial.
        worker: place among the processes of the trial.
        num_told: epochs that the listener knows already; it is told again of those behind them, without training.
        report: called on the first worker only.
        workers_here: how many workers of the trial share this machine's memory.

    Raises:
        StageError: the loss is not a number, or the memory cannot suffice.
        StorageError: a table or a checkpoint is damaged.
    """
    trainer = start_trainer(config, run, worker, workers_here)
    checkpoints = Checkpoints(run.stage(FOLDER), number)
    progress = checkpoints.load(trainer)
    if worker.is_first:
        for epoch in range(num_told + 1, progress.epoch + 1):
            told = _as_after(progress, epoch)
            report(told, epoch == progress.epoch and is_finished(progress, config))
    for _ in fit(trainer, progress):
        if worker.is_first:
            checkpoints.save(trainer, progress)
            report(progress, is_finished(progress, config))


def _as_after(progress: Progress, epoch: int) -> Progress:
    history = progress.history[:epoch]
    best_epoch = max(line["epoch"] for line in history if line["is_best"])
    return Progress(epoch=epoch, best_epoch=best_epoch, history=history)


class Checkpoints:
    """The weights of a trial's best epoch, and the state after its latest one."""

    def __init__(self, folder: StageFolder, number: int) -> None:
        self._folder, self._place = folder, place_of(number)

    def save(self, trainer: Trainer, progress: Progress) -> None:
        """Commit an epoch: the best weights before the state, since an epoch that is done again yields them again."""
        with tempfile.TemporaryDirectory(prefix="sracl-") as scratch:
            state = Path(scratch) / "state"
            trainer.save(state, progress)
            if progress.best_epoch == progress.epoch:
                self._write(state, BEST, (WEIGHTS, ENCODER, DESCRIPTION))
            names = sorted(path.name for path in state.iterdir() if path.name != DESCRIPTION)
            self._write(state, SLOTS[progress.epoch % 2], (*names, DESCRIPTION))
        lines = "".join(json.dumps(line) + "\n" for line in progress.history)
        self._folder.write_bytes(self._place + CURVE, lines.encode())

    def _write(self, state: Path, part: str, names: tuple[str, ...]) -> None:
        # The description comes last: without it the rest does not count.
        self._folder.delete([f"{self._place}{part}{DESCRIPTION}"])
        for name in names:
            self._folder.write_bytes(f"{self._place}{part}{name}", (state / name).read_bytes())

    def load(self, trainer: Trainer) -> Progress:
        """Restore the latest state; a new beginning where there is none."""
        slots = [slot for slot in SLOTS if self._folder.exists(f"{self._place}{slot}{DESCRIPTION}")]
        if not slots:
            return Progress()
        latest = max(slots, key=self._epoch)
        with tempfile.TemporaryDirectory(prefix="sracl-") as scratch:
            for name in self._folder.files(self._place + latest):
                (Path(scratch) / Path(name).name).write_bytes(self._folder.read_bytes(name))
            place = self._folder.shown(self._place + latest)
            anew = f"delete {self._folder.shown(self._place)} to have another trial in its place"
            return trainer.load(Path(scratch), place=place, anew=anew)

    def _epoch(self, slot: str) -> int:
        description: Any = self._folder.read_json(f"{self._place}{slot}{DESCRIPTION}")
        return int(description["progress"]["epoch"])

    def forget_state(self) -> None:
        """Delete what only going on needs, once the trial has ended."""
        for slot in SLOTS:
            self._folder.delete(self._folder.files(self._place + slot))
