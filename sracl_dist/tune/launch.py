"""Ray Tune: it runs the trials side by side and stops those that are behind. The only file that imports it.

What it is told comes from the records and what it tells goes there, so its own state is thrown away at every end.
"""

import json
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune import Callback, Checkpoint, FailureConfig, PlacementGroupFactory, RunConfig
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from sracl_dist.config import Config
from sracl_dist.environment import environment
from sracl_dist.errors import SraclError, first_line
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.state import Progress
from sracl_dist.tune.board import Board
from sracl_dist.tune.records import FOLDER, SESSION, Trial, config_of
from sracl_dist.tune.workers import train_with_peers

NUMBER, EPOCH, VALUE, BEST_VALUE, WALL, ENDED, REASON = "number", "epoch", "value", "best", "wall", "ended", "reason"
WORST = float("-inf")


def run_trials(config: Config, run: RunFolder, board: Board, *, max_concurrent: int, use_gpu: bool) -> None:
    """Train what is not done until all trials have ended or the time is up; the records tell what came out.

    Args:
        config: of the search.
        run: whose tables the trials read.
        board: decides what comes next and is told what happened.
        max_concurrent: trials side by side.
        use_gpu: whether each worker has a GPU.
    """
    folder = run.stage(FOLDER)
    folder.delete(folder.library_files(SESSION))
    bundle: dict[str, Any] = {"CPU": config.train.cpus_per_worker, **({"GPU": 1} if use_gpu else {})}
    resources = PlacementGroupFactory([bundle] * config.train.num_workers)

    def work(settings: dict[str, Any]) -> None:
        _work(config, run, settings[NUMBER], use_gpu)

    with _environment():
        np.random.seed(config.run.seed % 2**32)  # the scheduler draws brackets from the global generator
        tuner = tune.Tuner(
            tune.with_resources(work, resources),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(board, max_concurrent),
                scheduler=_make_scheduler(config, board),
                num_samples=board.num_left,
                # A new process imports for seconds what a trial may need for as long; peers must end with their trial.
                reuse_actors=config.train.num_workers == 1,
                trial_dirname_creator=lambda trial: f"trial-{trial.trial_id}",
            ),
            run_config=RunConfig(
                name=SESSION,
                storage_path=folder.path(),
                storage_filesystem=folder.filesystem,
                failure_config=FailureConfig(max_failures=config.train.max_failures),
                callbacks=[_Listener(board)],
                stop=_OutOfTime(board),
                verbose=0,
            ),
        )
        tuner.fit()
    folder.delete(folder.library_files(SESSION))


@contextmanager
def _environment() -> Iterator[None]:
    """What Ray Tune takes from the environment only."""
    wanted = {
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table at any verbosity
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the program as it ends any other job
        "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }
    level = logging.getLogger("ray.tune").level
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        with environment(wanted):
            yield
    finally:
        logging.getLogger("ray.tune").setLevel(level)


def _work(config: Config, run: RunFolder, number: int, use_gpu: bool) -> None:
    """What the process of a trial does."""

    def report(progress: Progress, is_last: bool) -> None:
        _report(config, progress, is_last)

    try:
        own = config_of(config, run.stage(FOLDER), number)
        train_with_peers(own, run, number, _num_told(), report, use_gpu=use_gpu)
    except SraclError as error:
        # Trying again would only bring the same sentence.
        tune.report({EPOCH: 0, BEST_VALUE: WORST, REASON: str(error)})


def _num_told() -> int:
    """Epochs that this session of Ray Tune has heard of; it starts a trial anew when a process died."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as folder:
        return int(json.loads((Path(folder) / EPOCH).read_text()))


def _report(config: Config, progress: Progress, is_last: bool) -> None:
    """Tell Ray Tune of an epoch; it forgets how far it had come unless a checkpoint comes with it."""
    values = [float(line["validation"][config.train.protocol][config.train.metric]) for line in progress.history]
    metrics = {
        EPOCH: progress.epoch,
        VALUE: values[-1],
        BEST_VALUE: max(values),
        WALL: float(progress.history[-1]["wall_s"]),
        ENDED: is_last,
    }
    with tempfile.TemporaryDirectory(prefix="sracl-") as folder:
        (Path(folder) / EPOCH).write_text(json.dumps(progress.epoch))
        tune.report(metrics, checkpoint=Checkpoint.from_directory(folder))


class _Proposals(Searcher):
    """Hands out what the board has next."""

    def __init__(self, board: Board, max_concurrent: int) -> None:
        super().__init__()
        self._board, self._max_concurrent = board, max_concurrent

    def suggest(self, trial_id: str) -> Any:  # noqa: ARG002
        """The next trial; None while as many as may are training."""
        if self._board.is_over or self._board.num_left == 0:
            return Searcher.FINISHED
        if self._board.num_training >= self._max_concurrent:
            return None
        return {NUMBER: self._board.start().number}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The listener has told the board already."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default", **_: Any) -> None:
        """Nothing: the records are the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the records are the state."""


class _Listener(Callback):
    """Tells the board what happens; Ray Tune names every argument."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Keep the progress line alive."""
        self._board.tick()

    def on_trial_result(self, *_: Any, trial: Any, result: dict[str, Any], **__: Any) -> None:  # type: ignore[override]
        """An epoch, or the sentence with which the trial fails."""
        number = trial.config[NUMBER]
        if REASON in result:
            self._board.fail(number, result[REASON])
        elif VALUE in result:
            self._board.epoch(number, result[EPOCH], result[VALUE], result[WALL], is_last=result[ENDED])

    def on_trial_complete(self, *_: Any, trial: Any, **__: Any) -> None:  # type: ignore[override]
        """It has ended, or was stopped."""
        self._board.end(trial.config[NUMBER])

    def on_trial_error(self, *_: Any, trial: Any, **__: Any) -> None:  # type: ignore[override]
        """It failed for the last time."""
        error = trial.get_error()
        reason = f"{type(error).__name__}: {first_line(error)}" if error else "its process died"
        self._board.fail(trial.config[NUMBER], reason)


class _OutOfTime(tune.Stopper):
    """Ends everything when the board says so."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """No single trial is stopped here."""
        return False

    def stop_all(self) -> bool:
        """Whether the time is up."""
        return self._board.is_over


class _Known:
    """A trial of the records, for a scheduler that asks for its name only."""

    def __init__(self, trial: Trial) -> None:
        self.trial_id = f"recorded-{trial.id}"


def _make_scheduler(config: Config, board: Board) -> TrialScheduler:
    """The scheduler, told of what the trials of the records had reached."""
    settings = config.tune
    if settings.scheduler == "none":
        return FIFOScheduler()
    scheduler = ASHAScheduler(
        time_attr=EPOCH,
        metric=BEST_VALUE,
        mode="max",
        max_t=config.train.epochs,
        grace_period=settings.grace_epochs,
        reduction_factor=settings.reduction_factor,
        brackets=num_brackets(config) if settings.scheduler == "hyperband" else 1,
    )
    for trial in board.records:
        if trial.is_done and trial.curve:
            _replay(scheduler, trial)
    return scheduler


def _replay(scheduler: ASHAScheduler, trial: Trial) -> None:
    controller: Any = None  # it asks it for nothing
    known: Any = _Known(trial)
    scheduler.on_trial_add(controller, known)
    best = WORST
    for epoch, value in enumerate(trial.curve, start=1):
        best = max(best, value)
        scheduler.on_trial_result(controller, known, {EPOCH: epoch, BEST_VALUE: best})
    scheduler.on_trial_remove(controller, known)


def num_brackets(config: Config) -> int:
    """Grace periods of hyperband: tune.grace_epochs times powers of tune.reduction_factor, up to train.epochs."""
    longest = config.train.epochs / config.tune.grace_epochs
    return 1 + int(np.log(longest) / np.log(config.tune.reduction_factor) + 1e-9)


def count_placement_groups(wait_s: float = 10.0) -> int:
    """Placement groups of this program that are still there, after waiting a while for them to go."""
    job = ray.get_runtime_context().get_job_id()
    deadline = time.monotonic() + wait_s
    while True:
        table = ray.util.placement_group_table()
        left = [name for name, group in table.items() if name.endswith(job) and group["state"] != "REMOVED"]
        if not left or time.monotonic() > deadline:
            return len(left)
        time.sleep(0.2)
