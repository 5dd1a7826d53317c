"""Training in the job's own process, without Ray, for a debugger: the same loop, the same results.

    local/<step>/       a checkpoint
    local/kept.json     the last one and that of the best epoch; what it does not name is deleted

It does not go on from the checkpoints of workers of Ray, nor they from its own.
"""

import contextlib
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from sracl_dist import observe
from sracl_dist.config import Config
from sracl_dist.errors import StageError, StorageError
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.run_folder.plain import parse_sealed_json, sealed_json
from sracl_dist.train.curve import write_curve
from sracl_dist.train.loop import Trainer, fit
from sracl_dist.train.saving import SaveSchedule
from sracl_dist.train.start import start_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.trackers import Trackers
from sracl_dist.train.worker import Worker

LOCAL = "local/"
KEPT = LOCAL + "kept.json"


class LocalCheckpoints:
    """Checkpoints in the folder of the stage: the last one and the best epoch's."""

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder
        self._kept: dict[str, str] = self._read_kept() if folder.exists(KEPT) else {}

    def save(self, trainer: Trainer, progress: Progress) -> None:
        """Write a checkpoint, and delete those that are no longer needed."""
        place = f"{LOCAL}{progress.step}-{'within' if progress.epoch_step else 'after'}-epoch"
        with tempfile.TemporaryDirectory(prefix="sracl-") as directory:
            trainer.save(Path(directory) / "state", progress)
            for path in sorted(Path(directory, "state").iterdir()):
                self._folder.write_bytes(f"{place}/{path.name}", path.read_bytes())
        self._kept["last"] = place
        if progress.epoch_step == 0 and progress.best_epoch == progress.epoch:
            self._kept["best"] = place
        self._folder.write_bytes(KEPT, sealed_json(self._kept))
        wanted = tuple(f"{name}/" for name in self._kept.values())
        names = self._folder.library_files(LOCAL)
        self._folder.delete(name for name in names if name != KEPT and not name.startswith(wanted))

    def restore(self, trainer: Trainer) -> Progress:
        """Go on from the last checkpoint, or begin.

        Raises:
            StorageError: it is damaged, or belongs to other work.
        """
        if "last" not in self._kept:
            return Progress()
        with tempfile.TemporaryDirectory(prefix="sracl-") as directory:
            for name in self._folder.library_files(self._kept["last"]):
                Path(directory, Path(name).name).write_bytes(self._folder.read_bytes(name))
            return trainer.load(Path(directory), place=self._folder.shown(self._kept["last"]), anew=self._anew)

    def _read_kept(self) -> dict[str, str]:
        try:
            return parse_sealed_json(self._folder.read_bytes(KEPT))
        except ValueError:
            raise StorageError(f"{self._folder.shown(KEPT)} is damaged; {self._anew}.") from None

    @property
    def _anew(self) -> str:
        return f"delete {self._folder.shown(LOCAL)} and run jobs/train.py, which trains anew"

    def read_best(self, name: str) -> bytes:
        """A file of the best epoch's checkpoint."""
        return self._folder.read_bytes(f"{self._kept['best']}/{name}")


def train_here(config: Config, run: RunFolder, trackers: Trackers) -> tuple[Progress, Callable[[str], bytes]]:
    """Train in this process; returns where training ended, and what reads a file of the best epoch's checkpoint.

    Raises:
        StageError: training cannot go on, or was told to end by SIGTERM and has saved.
        StorageError: an input table or a checkpoint is damaged, or the run folder cannot be written.
    """
    gpu = config.train.gpus_per_worker == 1 and torch.cuda.is_available()
    trainer = start_trainer(config, run, Worker(device=torch.device("cuda", 0) if gpu else torch.device("cpu")))
    folder = run.stage("train")
    checkpoints = LocalCheckpoints(folder)
    progress = checkpoints.restore(trainer)
    num_targets, num_steps = trainer.batches.num_targets, trainer.batches.num_steps
    already = progress.epoch * num_targets + num_targets * progress.epoch_step // num_steps
    line = observe.Progress("train", num_targets * config.train.epochs, "targets", done=already)
    with _told_to_stop() as told:
        schedule = SaveSchedule(config.train.checkpoint_every_s, trainer.worker, is_told_to_stop=told.is_set)
        for _ in fit(trainer, progress, lambda num, _: line.update(num), schedule.is_due):
            checkpoints.save(trainer, progress)
            schedule.has_saved()
            if schedule.must_stop:
                raise StageError(f"Training was told to end, and saved after step {progress.step}; run it again.")
            if not progress.epoch_step:
                write_curve(folder, progress)
                trackers.log(progress.history)
                line.update(0, epochs=f"{progress.epoch}/{config.train.epochs}")
    line.close()
    return progress, checkpoints.read_best


@contextlib.contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """Takes SIGTERM for a request to save and end, where this is the main thread, which alone can catch it."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before: Any = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)
