"""What every worker of Ray Train does: the loop, and its checkpoints.

A checkpoint is copied to the run folder in the background while training goes on; the one before must be there first,
so that no more than one waits in the worker's temporary folder.
"""

import signal
import tempfile
import threading
from pathlib import Path
from typing import Any

import ray.train
from ray.train import Checkpoint, CheckpointConsistencyMode, CheckpointUploadMode
from ray.train.torch import get_device
from ray.train.v2._internal.execution.callback import WorkerCallback

from sracl_dist.config import Config
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.train.curve import write_curve
from sracl_dist.train.display import Reporter
from sracl_dist.train.loop import Trainer, fit
from sracl_dist.train.saving import SaveSchedule
from sracl_dist.train.start import start_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

STAGE = "train"
CHECKPOINTS = "checkpoints"
SELECTED = "selected_epoch"
"""Metric by which Ray Train keeps the best checkpoint: its epoch if it was the best so far, else -1."""
CHECKPOINT_FOLDER = "state"
"""Folder within a Ray checkpoint; a checkpoint of ours appears by a rename."""
_told_to_stop = threading.Event()


class WorkerStoppedError(Exception):
    """A worker was told to end, and its checkpoint is written; Ray Train starts another if it may."""


class StopBySignal(WorkerCallback):
    """Takes SIGTERM for a request to save and end; a second one ends the process at once, as Ray has it."""

    def after_init_train_context(self) -> None:
        """Called in the main thread of every worker, where alone a signal can be caught."""
        at_once: Any = signal.getsignal(signal.SIGTERM)

        def stop(number: int, frame: Any) -> None:
            if _told_to_stop.is_set() and callable(at_once):
                at_once(number, frame)
            _told_to_stop.set()

        signal.signal(signal.SIGTERM, stop)


def work(config: Config, run: RunFolder, board: Any) -> None:
    """What every worker does; what it reports are checkpoints.

    Raises:
        SraclError: training cannot go on.
        WorkerStoppedError: a worker was told to end.
    """
    context = ray.train.get_context()
    worker = Worker(rank=context.get_world_rank(), world_size=context.get_world_size(), device=get_device())
    trainer = start_trainer(config, run, worker, context.get_local_world_size())
    progress = _restore(trainer, run.stage(STAGE))
    reporter = Reporter(board, worker, progress, trainer.batches)
    schedule = SaveSchedule(
        config.train.checkpoint_every_s,
        worker,
        is_told_to_stop=_told_to_stop.is_set,
        is_going=lambda: ray.train.get_preemption_info() is not None,
    )
    for _ in fit(trainer, progress, reporter.on_step, schedule.is_due):
        _report(trainer, progress)
        schedule.has_saved()
        if schedule.must_stop:
            _wait_for_upload()
            raise WorkerStoppedError(f"a worker was told to end by SIGTERM, saved after step {progress.step}")
        if worker.is_first and not progress.epoch_step:
            write_curve(run.stage(STAGE), progress)
            reporter.on_epoch(progress)


def _restore(trainer: Trainer, folder: StageFolder) -> Progress:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return Progress()
    with checkpoint.as_directory() as directory:
        return trainer.load(Path(directory) / CHECKPOINT_FOLDER, place=checkpoint.path, anew=train_anew(folder))


def train_anew(folder: StageFolder) -> str:
    """What makes training begin anew, for messages."""
    return f"delete {folder.shown(CHECKPOINTS)} and run jobs/train.py, which trains anew"


def _report(trainer: Trainer, progress: Progress) -> None:
    """Commit where training stands. It is a barrier, and Ray Train forgets metrics that come without a checkpoint."""
    is_best_epoch = progress.epoch_step == 0 and progress.best_epoch == progress.epoch
    metrics = {SELECTED: float(progress.epoch if is_best_epoch else -1)}
    checkpoint = None
    if trainer.worker.is_first:
        _wait_for_upload()
        directory = tempfile.mkdtemp(prefix="sracl-")  # deleted once it is copied
        trainer.save(Path(directory) / CHECKPOINT_FOLDER, progress)
        checkpoint = Checkpoint.from_directory(directory)
    ray.train.report(metrics, checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)


def _wait_for_upload() -> None:
    """Return when every checkpoint reported so far is in the run folder."""
    ray.train.get_all_reported_checkpoints(consistency_mode=CheckpointConsistencyMode.COMMITTED)
