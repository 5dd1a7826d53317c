"""The training loop: epochs of steps, validation after each, the best epoch kept, an early stop.

It knows no Ray. Several workers run it side by side once torch.distributed is set up; what it yields does not depend
on their number, apart from the random numbers of dropout and substitution, which every worker draws for itself.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sracl_dist.config import Config
from sracl_dist.data.sequences import Sequences
from sracl_dist.errors import StageError
from sracl_dist.model.row_per_prefix import RowPerPrefix
from sracl_dist.model.sracl import TOTAL, Recommender, SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.batches import TrainingBatches
from sracl_dist.train.optimiser import learning_rate, make_optimiser
from sracl_dist.train.prefixes import PrefixBatches
from sracl_dist.train.rowwise import RowwiseAdamW
from sracl_dist.train.state import Progress, load_checkpoint, made_from, save_checkpoint
from sracl_dist.train.validation import validate
from sracl_dist.train.worker import Worker


class Batches(Protocol):
    """The rows of one epoch after the other; the model knows what a batch is."""

    num_steps: int
    """Steps of an epoch."""
    num_targets: int
    """Targets of an epoch, of all workers together."""

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Rows of every step of the epoch, of all workers together."""

    def batch(self, rows: NDArray[np.int64]) -> Any:
        """This worker's part of a step with these rows; it has `to(device)` and `num_targets`."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Model, optimiser and batches of one worker."""

    config: Config
    worker: Worker
    sequences: Sequences
    batches: Batches
    model: Recommender
    parallel: torch.nn.Module
    """The model, behind DistributedDataParallel where there are several workers."""
    optimiser: RowwiseAdamW
    source: dict[str, Any]
    """What its checkpoints are bound to."""

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint; between two epochs, or all workers must have called `optimiser.settle`."""
        self.optimiser.settle()
        save_checkpoint(folder, self.model, self.optimiser, progress, self.source)

    def load(self, folder: Path) -> Progress:
        """Go on from a checkpoint; see `load_checkpoint`."""
        return load_checkpoint(folder, self.model, self.optimiser, self.source)


def make_trainer(config: Config, sequences: Sequences, tables: SemanticTables, worker: Worker) -> Trainer:
    """Everything at its beginning; the same initial weights on every worker.

    Raises:
        StageError: there is nothing to train or to select by.
        StorageError: a table is damaged.
    """
    batches = make_batches(config, sequences, worker)
    require_trainable(sequences, batches)
    torch.manual_seed(config.run.seed)
    kind = RowPerPrefix if config.train.examples == "prefixes" else SraCl
    model: Recommender = kind(config, tables).to(worker.device)
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
        source=made_from(config, sequences.num_users, sequences.num_items),
    )


def make_batches(config: Config, sequences: Sequences, worker: Worker | None = None) -> Batches:
    """The rows that train.examples asks for; without a worker those of a single one."""
    of = (sequences, config.model.max_length, config.train.batch_rows, config.run.seed)
    if config.train.examples == "prefixes":
        return PrefixBatches(*of)
    place = worker or Worker()
    return TrainingBatches(*of, rank=place.rank, world_size=place.world_size)


def require_trainable(sequences: Sequences, batches: Batches) -> None:
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
    trainer: Trainer, progress: Progress, on_step: Callable[[int, Progress], None] = lambda _num, _progress: None
) -> Iterator[Progress]:
    """Train until finished, yielding where training stands after every epoch.

    Args:
        trainer: from `make_trainer`, after its `load` where training goes on.
        progress: where it goes on; changed in place.
        on_step: told the number of targets that all workers together have just trained.

    Raises:
        StageError: the loss is not a number.
    """
    config = trainer.config
    while not is_finished(progress, config):
        started = time.monotonic()
        losses, norm = _train_epoch(trainer, progress, on_step)
        train_s = time.monotonic() - started
        validation = validate(trainer.model.encoder, trainer.sequences, trainer.worker)
        progress.epoch += 1
        _compare(progress, validation[config.train.protocol][config.train.metric])
        progress.history.append(
            {
                "epoch": progress.epoch,
                "step": progress.step,
                "loss": losses,
                "gradient_norm": norm,
                "learning_rate": trainer.optimiser.param_groups[0]["lr"],
                "examples_per_second": trainer.batches.num_targets / max(train_s, 1e-9),
                "validation": validation,
                "is_best": progress.best_epoch == progress.epoch,
                "wall_s": time.monotonic() - started,
            }
        )
        yield progress


def train_step(trainer: Trainer, rows: NDArray[np.int64], step: int) -> tuple[dict[str, Tensor], Tensor, int]:
    """Train the rows of one step.

    Args:
        trainer: whose model is in training mode.
        rows: one entry of `Batches.order`.
        step: how many steps came before, of which the learning rate is made.

    Returns:
        this worker's share of every term; the gradient's norm; the number of targets of all workers together.
    """
    worker = trainer.worker
    # On a CPU the encoder's products are too small for bfloat16 to pay for the conversions around them.
    autocast = trainer.config.train.precision == "bfloat16" and worker.device.type == "cuda"
    batch = trainer.batches.batch(rows).to(worker.device)
    _set_learning_rate(trainer, step)
    with torch.autocast(worker.device.type, torch.bfloat16, enabled=autocast):
        terms = trainer.parallel(batch)
    # DistributedDataParallel averages gradients over workers, and the terms are shares that must be added.
    (terms[TOTAL] * worker.world_size).backward()
    trainer.optimiser.share(worker)
    norm = _clip(trainer.model, trainer.config.train.max_gradient_norm)
    trainer.optimiser.step()
    trainer.optimiser.zero_grad(set_to_none=True)
    return {name: value.detach() for name, value in terms.items()}, norm, batch.num_targets


def _train_epoch(
    trainer: Trainer, progress: Progress, on_step: Callable[[int, Progress], None]
) -> tuple[dict[str, float], float]:
    """One pass over all targets; returns the mean of each term over steps, and of the gradient's norm."""
    worker = trainer.worker
    torch.manual_seed(_epoch_seed(trainer.config.run.seed, progress.epoch, worker.rank))
    trainer.parallel.train()
    sums: dict[str, Tensor] = {}
    norms = torch.zeros((), device=worker.device)
    for rows in trainer.batches.order(progress.epoch):
        terms, norm, num_targets = train_step(trainer, rows, progress.step)
        norms += norm
        progress.step += 1
        for name, value in terms.items():
            sums[name] = sums.get(name, torch.zeros_like(norms)) + value
        on_step(num_targets, progress)
    trainer.optimiser.settle()
    num_steps = trainer.batches.num_steps
    summed = worker.sum_over_workers(torch.stack(list(sums.values()))) / num_steps
    losses = dict(zip(sums, summed.tolist(), strict=True))
    _require_finite(losses, progress.epoch + 1)
    return losses, float(norms / num_steps)


def _set_learning_rate(trainer: Trainer, step: int) -> None:
    rate = learning_rate(trainer.config.train, step, trainer.batches.num_steps)
    for group in trainer.optimiser.param_groups:
        group["lr"] = rate


def _clip(model: Recommender, largest: float | None) -> Tensor:
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


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """A seed for torch that differs between runs, epochs and workers without overlap."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0] >> 1)


def _require_finite(losses: dict[str, float], epoch: int) -> None:
    for name, value in losses.items():
        if not np.isfinite(value):
            raise StageError(f"The loss {name} is {value} in epoch {epoch}; use a lower train.learning_rate.")
