"""The stage train: the loop on the workers of Ray Train, and its results in the run folder.

    best/model.safetensors      weights of the selected epoch
    best/encoder.safetensors    what inference needs of them
    best/checkpoint.json        what they were made from
    metrics.jsonl               one line per epoch
    checkpoints/                Ray Train's own: the best epoch and the last, for going on
    local/                      the same of train.local
    tensorboard/, mlflow.json   what train.trackers asks for

Ray Train continues from the last checkpoint when the same name and storage path come again. The stage loses its files
when the settings change, so that what is found there always belongs to the work in progress.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from ray.exceptions import RayActorError, RayTaskError
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, Result, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError

from sracl_dist.cluster import connected
from sracl_dist.config import Config
from sracl_dist.errors import SraclError, StageError, StorageError, first_line, last_line
from sracl_dist.meeting import keep_store_on_loopback
from sracl_dist.model.encoders import encoder_class
from sracl_dist.observe import say
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.sequences import Sequences, load_sequences
from sracl_dist.stages import StageResult
from sracl_dist.train.curve import METRICS, write_curve
from sracl_dist.train.display import Display
from sracl_dist.train.estimate import estimate, sizes_of
from sracl_dist.train.local import train_here
from sracl_dist.train.loop import make_batches, require_trainable
from sracl_dist.train.room import EndWithoutRoom, RoomOfWorkers
from sracl_dist.train.state import (
    BEST,
    WEIGHTS,
    Progress,
    num_parameters_in,
    read_progress,
    read_published,
)
from sracl_dist.train.trackers import Trackers
from sracl_dist.train.work import (
    CHECKPOINT_FOLDER,
    CHECKPOINTS,
    SELECTED,
    STAGE,
    StopBySignal,
    train_anew,
    work,
)

POLL_INTERVAL_S = "0.5"
"""How often Ray Train's controller asks the workers, which also limits how fast checkpoints follow one another."""
STORAGE_MARKER = ".validate_storage_marker"
"""File by which Ray Train finds out whether it can write to its storage."""


def train(config: Config, run: RunFolder) -> StageResult:
    """Fit the recommender on the configured number of workers, or go on where a killed run stopped.

    Raises:
        SetupError: the cluster cannot hold the workers, or no longer.
        StageError: training cannot go on, or its memory would not suffice.
        StorageError: an input table or a checkpoint is damaged, or the run folder cannot be written.
    """
    encoder_class(config.model.encoder)
    sequences = load_sequences(run)
    batches = make_batches(config, sequences)
    require_trainable(sequences, batches)
    with Trackers(config, run) as trackers:
        if config.train.local:
            progress, read_best = train_here(config, run, trackers)
            trackers.log(progress.history)
            return _publish(config, run.stage(STAGE), progress, read_best, batches.num_targets)
        return _train_on_workers(config, run, sequences, batches.num_targets, trackers)


def _train_on_workers(
    config: Config, run: RunFolder, sequences: Sequences, num_targets: int, trackers: Trackers
) -> StageResult:
    folder = run.stage(STAGE)
    with connected(config.cluster) as cluster:
        use_gpu = cluster.num_gpus > 0 and config.train.gpus_per_worker == 1
        room = RoomOfWorkers.of(config, use_gpu=use_gpu)
        room.require()
        need = estimate(config, sizes_of(config, run, sequences), on_gpu=use_gpu)
        say(f"{STAGE}: {need.line(config.train.num_workers)}")
        with Display(config, num_targets, trackers, room) as display:
            result = _run_workers(config, run, room, display.board)
        progress, best = _outcome(folder, result)
        trackers.log(progress.history)
        with best.as_directory() as directory:
            where = Path(directory) / CHECKPOINT_FOLDER
            return _publish(config, folder, progress, lambda name: (where / name).read_bytes(), num_targets)


class _EndAtOnce(UserCallback):
    """Ends training when a worker raises a sentence for the user, which would only come again in a restart.

    Ray Train restarts workers whatever they raised, and counts what its callbacks raise as final; it stops the other
    workers, which may be waiting for the one that failed.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:  # noqa: ARG002
        """Raise the first such error; `worker_exceptions` are by rank."""
        for error in worker_exceptions.values():
            if isinstance(error, SraclError):
                raise error


def _run_workers(config: Config, run: RunFolder, room: RoomOfWorkers, board: Any) -> Result:
    folder = run.stage(STAGE)
    # Ray Train's controller writes this file first, and if it cannot, dies with a trace instead of a reason.
    folder.plain.write_bytes(f"{CHECKPOINTS}/{STORAGE_MARKER}", b"writable")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_INTERVAL_S)
    try:
        return _make_ray_trainer(config, run, room, board).fit()
    except TrainingFailedError as error:
        raise _as_sentence(error, folder) from error
    except RayActorError as error:
        raise StageError(
            f"The process that leads training died ({last_line(error)}); look at its machine's memory first, and run "
            f"it again."
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise _unwritable(error, folder) from error


class _TorchBackend(TorchConfig().backend_cls):  # type: ignore[misc]
    """Sets the workers up to compute together."""

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        """Make the process group, whose store no other machine reaches where all workers are on this one."""
        worker_group.execute(keep_store_on_loopback)
        super().on_start(worker_group, backend_config)


class _TorchConfig(TorchConfig):
    @property
    def backend_cls(self) -> Any:
        return _TorchBackend


class _Trainer(TorchTrainer):
    """A trainer that Ctrl-C ends as it ends any other job.

    Ray Train's own handler exits with a status of its own, 0 or 1, and no word of how to go on.
    """

    def _register_sigint_handler(self, controller: Any) -> None:
        """Leave Python's handler in place."""


def _make_ray_trainer(config: Config, run: RunFolder, room: RoomOfWorkers, board: Any) -> TorchTrainer:
    folder, use_gpu = run.stage(STAGE), room.use_gpu

    def work_of_one() -> None:
        work(config, run, board)

    least = config.train.min_workers
    # ScalingConfig is typed for the search spaces of Ray Tune.
    num_workers: Any = config.train.num_workers if least is None else (least, config.train.num_workers)
    callbacks: Any = [
        _EndAtOnce(),
        EndWithoutRoom(room),
        StopBySignal(),
    ]  # RunConfig is typed for the callbacks of Ray Tune
    return _Trainer(
        work_of_one,
        torch_config=_TorchConfig(backend="nccl" if use_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=num_workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": config.train.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
        ),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=folder.path(),
            storage_filesystem=folder.filesystem,
            failure_config=FailureConfig(max_failures=config.train.max_failures),
            callbacks=callbacks,
            checkpoint_config=CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute=SELECTED, checkpoint_score_order="max"
            ),
        ),
    )


def _as_sentence(error: TrainingFailedError, folder: StageFolder) -> SraclError:
    """What a worker raised, if it is a sentence for the user already, or one about it."""
    if isinstance(error, ControllerError):
        failure = error.controller_failure
        if isinstance(failure, SraclError):
            return failure
        if isinstance(failure, OSError | pa.ArrowException):
            return _unwritable(failure, folder)
        return StageError(f"Training failed ({_named(failure)}); mend the cause and run it again.")
    causes = list(getattr(error, "worker_failures", {}).values())
    for cause in causes:
        if isinstance(cause, SraclError):
            return cause
    reason = _named(causes[0] if causes else error)
    return StageError(f"Training failed after train.max_failures restarts ({reason}); mend the cause and run it again.")


def _unwritable(error: Exception, folder: StageFolder) -> StorageError:
    reason = first_line(error.cause if isinstance(error, RayTaskError) else error)
    return StorageError(
        f"{folder.path(CHECKPOINTS)} cannot be written ({reason}); make room or mend the permission, or set "
        f"run.dir to another place."
    )


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _outcome(folder: StageFolder, result: Result) -> tuple[Progress, Checkpoint]:
    """Where training ended, and the checkpoint of the best epoch; others are deleted, but for the last one."""
    if result.checkpoint is None:
        raise StageError("Training ended without a checkpoint; run it again with a larger train.max_failures.")
    with result.checkpoint.as_directory() as directory:
        progress = read_progress(
            Path(directory) / CHECKPOINT_FOLDER, place=result.checkpoint.path, anew=train_anew(folder)
        )
    kept = {int(metrics[SELECTED]): checkpoint for checkpoint, metrics in result.best_checkpoints or []}
    if progress.best_epoch not in kept:
        raise StageError(
            f"The checkpoint of epoch {progress.best_epoch} is missing in {folder.shown(CHECKPOINTS)}; "
            f"{train_anew(folder)}."
        )
    best = kept[progress.best_epoch]
    _delete_orphans(folder, [result.checkpoint, best])
    return progress, best


def _publish(
    config: Config, folder: StageFolder, progress: Progress, read_best: Callable[[str], bytes], num_targets: int
) -> StageResult:
    """Put the selected checkpoint where later stages find it, and describe the run."""
    files = read_published(read_best, place=f"of epoch {progress.best_epoch}", anew=folder.anew)
    for name, content in files.items():
        folder.write_bytes(BEST + name, content)
    write_curve(folder, progress)
    return _describe(config, progress, num_targets, num_parameters_in(files[WEIGHTS]), folder)


def _delete_orphans(folder: StageFolder, kept: Sequence[Checkpoint]) -> None:
    """Checkpoints that were uploaded but not recorded when the run was killed; Ray Train leaves them for ever."""
    wanted = {PurePosixPath(checkpoint.path).name for checkpoint in kept}
    names = (PurePosixPath(name) for name in folder.library_files(CHECKPOINTS))
    folder.delete(str(name) for name in names if len(name.parts) > 2 and name.parts[1] not in wanted)


def _describe(
    config: Config, progress: Progress, num_targets: int, num_parameters: int, folder: StageFolder
) -> StageResult:
    history = progress.history
    best = history[progress.best_epoch - 1]
    chosen = f"{config.train.metric} ({config.train.protocol.replace('_', ' ')})"
    value = best["validation"][config.train.protocol][config.train.metric]
    return StageResult(
        rows={"epochs": progress.epoch, "training_targets": num_targets},
        details={
            "best_epoch": progress.best_epoch,
            "best_validation": best["validation"],
            "selected_by": {"metric": config.train.metric, "protocol": config.train.protocol},
            "num_parameters": num_parameters,
            "num_workers": history[-1]["num_workers"],
            "examples_per_second": round(sum(line["examples_per_second"] for line in history) / len(history), 1),
            "seconds_per_epoch": round(sum(line["wall_s"] for line in history) / len(history), 3),
        },
        summary=[
            f"best epoch {progress.best_epoch} of {progress.epoch}, validation {chosen} {value:.4f}",
            f"weights in {folder.path(BEST)}, curve in {folder.path(METRICS)}",
        ],
    )
