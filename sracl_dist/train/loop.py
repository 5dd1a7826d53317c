"""The training loop: epochs of steps, validation after each, the best epoch kept, an early stop.

It knows no Ray. Several workers run it side by side once torch.distributed is set up; what it yields does not depend
on their number, apart from the random numbers of dropout and substitution, which every worker draws for itself. They
are seeded before every step by the run's seed, the step's number and the worker's rank, so that training can go on
from any step with nothing kept of them.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.model.inputs import Batch
from sracl_dist.model.sracl import TOTAL, SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.batches import TrainingBatches
from sracl_dist.train.machine_memory import share_banks
from sracl_dist.train.optimiser import learning_rate, make_optimiser
from sracl_dist.train.prefetch import made_ahead
from sracl_dist.train.rowwise import RowwiseAdamW
from sracl_dist.train.state import Progress, load_checkpoint, made_from, save_checkpoint, tables_read
from sracl_dist.train.tally import GRADIENT_NORM, Tally
from sracl_dist.train.validation import validate
from sracl_dist.train.worker import Worker


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Model, optimiser and batches of one worker."""

    config: Config
    worker: Worker
    sequences: Sequences
    batches: TrainingBatches
    model: SraCl
    parallel: torch.nn.Module
    """The model, behind DistributedDataParallel where there are several workers."""
    optimiser: RowwiseAdamW
    source: dict[str, Any]
    """What its checkpoints are bound to."""

    def parts(self, rows: NDArray[np.integer]) -> list[Batch]:
        """This worker's part of a step with these rows, in train.accumulate_steps batches that pass one by one."""
        parts = np.array_split(rows, self.config.train.accumulate_steps)
        return [self.batches.batch(part).to(self.worker.device) for part in parts if len(part)]

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint; between two epochs, or all workers must have called `optimiser.settle`."""
        self.optimiser.settle()
        save_checkpoint(folder, self.model, self.optimiser, progress, self.source)

    def load(self, folder: Path, *, place: str, anew: str) -> Progress:
        """Go on from a checkpoint; see `load_checkpoint`."""
        return load_checkpoint(folder, self.model, self.optimiser, self.source, place=place, anew=anew)


def make_trainer(config: Config, sequences: Sequences, tables: SemanticTables, worker: Worker) -> Trainer:
    """Everything at its beginning; the same initial weights on every worker.

    Raises:
        StageError: there is nothing to train or to select by.
        StorageError: a table is damaged.
    """
    batches = make_batches(config, sequences, worker)
    require_trainable(sequences, batches)
    torch.manual_seed(config.run.seed)
    model = SraCl(config, tables).to(worker.device)
    share_banks(model, worker)
    parallel: torch.nn.Module = model
    if worker.world_size > 1:
        # Weights and buffers are equal already: the same seed, the same tables, the same checkpoint.
        parallel = DistributedDataParallel(model, broadcast_buffers=False, init_sync=False)
    return Trainer(
        config=config,
        worker=worker,
        sequences=sequences,
        batches=batches,
        model=model,
        parallel=parallel,
        optimiser=make_optimiser(config.train, model),
        source=made_from(config, sequences.num_users, sequences.num_items, tables_read(tables.run)),
    )


def make_batches(config: Config, sequences: Sequences, worker: Worker | None = None) -> TrainingBatches:
    """The rows that are trained; without a worker those of a single one."""
    place = worker or Worker()
    return TrainingBatches(
        sequences,
        config.model.max_length,
        config.train.batch_rows,
        config.run.seed,
        rank=place.rank,
        world_size=place.world_size,
    )


def require_trainable(sequences: Sequences, batches: TrainingBatches) -> None:
    """Refuse data without anything to learn or to select by.

    Raises:
        StageError: says what is missing.
    """
    if batches.num_targets == 0:
        raise StageError("No user has two training items, so there is nothing to learn; use a longer log.")
    if not len(sequences.targets("validation")[0]):
        raise StageError("No user has a validation item, so no epoch can be selected; change data.split or the log.")


def is_finished(progress: Progress, config: Config) -> bool:
    """Whether all epochs are done, or too many have passed without a better metric."""
    return progress.epoch >= config.train.epochs or progress.epochs_without_gain >= config.train.patience


def fit(
    trainer: Trainer,
    progress: Progress,
    on_step: Callable[[int, Progress], None] = lambda _num, _progress: None,
    is_due: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train until finished, yielding where training stands after every epoch, and within one when `is_due` says so.

    Args:
        trainer: from `make_trainer`, after its `load` where training goes on.
        progress: where it goes on; changed in place.
        on_step: told the number of targets that all workers together have just trained.
        is_due: asked after every step; it must answer the same on every worker.

    Raises:
        StageError: the loss is not a number.
    """
    while not is_finished(progress, trainer.config):
        yield from _train_epoch(trainer, progress, on_step, is_due)
        _end_epoch(trainer, progress)
        yield progress


def train_step(trainer: Trainer, parts: Sequence[Batch], step: int) -> tuple[dict[str, Tensor], Tensor, int]:
    """Train the rows of one step.

    Args:
        trainer: whose model is in training mode.
        parts: from `Trainer.parts`.
        step: how many steps came before, of which the learning rate and the random numbers are made.

    Returns:
        this worker's share of every term; the gradient's norm; the number of targets of all workers together.
    """
    _seed(trainer.config.run.seed, step, trainer.worker)
    _set_learning_rate(trainer, step)
    num_targets = sum(part.num_targets for part in parts)
    sums: dict[str, Tensor] = {}
    for number, part in enumerate(parts, start=1):
        share = part.num_targets / num_targets if num_targets else 1 / len(parts)
        for name, value in _accumulate(trainer, part, share, is_last=number == len(parts)).items():
            sums[name] = sums[name] + value if name in sums else value
    trainer.optimiser.share(trainer.worker)
    norm = _clip(trainer.model, trainer.config.train.max_gradient_norm)
    trainer.optimiser.step()
    trainer.optimiser.zero_grad(set_to_none=True)
    return sums, norm, num_targets


def _accumulate(trainer: Trainer, part: Batch, share: float, *, is_last: bool) -> dict[str, Tensor]:
    """Add the gradient of a part of a step, which has this share of its targets; returns its share of every term."""
    worker, parallel = trainer.worker, trainer.parallel
    # On a CPU the encoder's products are too small for bfloat16 to pay for the conversions around them.
    autocast = trainer.config.train.precision == "bfloat16" and worker.device.type == "cuda"
    # The gradients of workers are averaged once, with the last part.
    with parallel.no_sync() if isinstance(parallel, DistributedDataParallel) and not is_last else nullcontext():
        with torch.autocast(worker.device.type, torch.bfloat16, enabled=autocast):
            terms = parallel(part)
        # DistributedDataParallel averages gradients over workers, and the terms are shares that must be added.
        (terms[TOTAL] * (worker.world_size * share)).backward()
    return {name: value.detach() * share for name, value in terms.items()}


def _train_epoch(
    trainer: Trainer, progress: Progress, on_step: Callable[[int, Progress], None], is_due: Callable[[], bool]
) -> Iterator[Progress]:
    """What is left of one pass over all targets; yields when `is_due` says so, and leaves its sums in `progress`."""
    trainer.parallel.train()
    tally = Tally(trainer.worker, progress)
    steps = trainer.batches.order(progress.epoch)[progress.epoch_step :]
    with closing(made_ahead(trainer.parts, steps)) as parts_of_steps:
        for parts in tally.waiting_for(parts_of_steps):
            terms, norm, num_targets = train_step(trainer, parts, progress.step)
            tally.add(terms, norm)
            progress.step += 1
            progress.epoch_step += 1
            on_step(num_targets, progress)
            if is_due():
                trainer.optimiser.settle()
                tally.write_to(progress)
                yield progress
    trainer.optimiser.settle()
    tally.write_to(progress)


def _end_epoch(trainer: Trainer, progress: Progress) -> None:
    """Validate, and turn the sums of the epoch into a line of its history."""
    config, worker, num_steps = trainer.config, trainer.worker, trainer.batches.num_steps
    started = time.monotonic()
    losses = {name: total / num_steps for name, total in progress.sums.items()}
    norm = losses.pop(GRADIENT_NORM)
    _require_finite(losses, progress.epoch + 1)
    validation = validate(trainer.model.encoder, trainer.sequences, worker)
    train_s, wait_s = max(progress.train_s, 1e-9), progress.wait_s
    progress.epoch += 1
    progress.epoch_step, progress.sums, progress.train_s, progress.wait_s = 0, {}, 0.0, 0.0
    _compare(progress, validation[config.train.protocol][config.train.metric])
    progress.history.append(
        {
            "epoch": progress.epoch,
            "step": progress.step,
            "loss": losses,
            "gradient_norm": norm,
            "learning_rate": learning_rate(config.train, progress.step - 1, num_steps),
            "examples_per_second": trainer.batches.num_targets / train_s,
            "num_workers": worker.world_size,
            "data_wait_share": wait_s / train_s,
            "gpu_memory_bytes": torch.cuda.max_memory_allocated(worker.device) if worker.is_on_gpu else None,
            "validation": validation,
            "is_best": progress.best_epoch == progress.epoch,
            "wall_s": train_s + time.monotonic() - started,
        }
    )


def _set_learning_rate(trainer: Trainer, step: int) -> None:
    rate = learning_rate(trainer.config.train, step, trainer.batches.num_steps)
    for group in trainer.optimiser.param_groups:
        group["lr"] = rate


def _clip(model: SraCl, largest: float | None) -> Tensor:
    """Scale gradients down to the norm `largest`; returns the norm before."""
    moving = model.with_gradient()
    norm = torch.nn.utils.get_total_norm([value.grad for value in moving if value.grad is not None])
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(moving, largest, norm)
    return norm


def _compare(progress: Progress, value: float) -> None:
    if value > progress.best_value:
        progress.best_epoch, progress.best_value, progress.epochs_without_gain = progress.epoch, value, 0
    else:
        progress.epochs_without_gain += 1


def _seed(seed: int, step: int, worker: Worker) -> None:
    """Seed the generators that a step draws from, differently for runs, steps and workers.

    `torch.manual_seed` would also visit every kind of device, which takes ten times as long as all of this.
    """
    mixed = int(np.random.SeedSequence([seed, step, worker.rank]).generate_state(1, np.uint64)[0] >> 1)
    torch.default_generator.manual_seed(mixed)
    if worker.is_on_gpu:
        torch.cuda.manual_seed(mixed)


def _require_finite(losses: dict[str, float], epoch: int) -> None:
    for name, value in losses.items():
        if not np.isfinite(value):
            raise StageError(f"The loss {name} is {value} in epoch {epoch}; use a lower train.learning_rate.")
