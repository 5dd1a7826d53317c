"""The training loop: epochs of steps, validation after each, the best epoch kept, an early stop.

It knows no Ray. Several workers run it side by side once torch.distributed is set up; what it yields does not depend
on their number, apart from the random numbers of dropout and substitution, which every worker draws for itself.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from sracl_dist.config import Config
from sracl_dist.data.sequences import Sequences
from sracl_dist.errors import StageError
from sracl_dist.model.sracl import TOTAL, SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.batches import TrainingBatches
from sracl_dist.train.state import Progress, load_checkpoint, made_from, save_checkpoint
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
    optimiser: torch.optim.Optimizer
    source: dict[str, Any]
    """What its checkpoints are bound to."""

    def save(self, folder: Path, progress: Progress) -> None:
        """Write a checkpoint."""
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
    train = config.train
    batches = TrainingBatches(
        sequences,
        config.model.max_length,
        train.batch_rows,
        config.run.seed,
        rank=worker.rank,
        world_size=worker.world_size,
    )
    require_trainable(sequences, batches)
    torch.manual_seed(config.run.seed)
    model = SraCl(config, tables).to(worker.device)
    parallel: torch.nn.Module = model
    if worker.world_size > 1:
        # Weights and buffers are equal already: the same seed, the same tables, the same checkpoint.
        parallel = DistributedDataParallel(model, broadcast_buffers=False, init_sync=False)
    optimiser = torch.optim.AdamW(model.parameters(), lr=train.learning_rate, weight_decay=train.weight_decay)
    return Trainer(
        config=config,
        worker=worker,
        sequences=sequences,
        batches=batches,
        model=model,
        parallel=parallel,
        optimiser=optimiser,
        source=made_from(config, sequences.num_users, sequences.num_items),
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
        batch = trainer.batches.batch(rows).to(worker.device)
        terms = trainer.parallel(batch)
        # DistributedDataParallel averages gradients over workers, and the terms are shares that must be added.
        (terms[TOTAL] * worker.world_size).backward()
        norms += _clip(trainer.model, trainer.config.train.max_gradient_norm)
        trainer.optimiser.step()
        trainer.optimiser.zero_grad(set_to_none=True)
        progress.step += 1
        for name, value in terms.items():
            sums[name] = sums.get(name, torch.zeros_like(norms)) + value.detach()
        on_step(batch.num_targets, progress)
    num_steps = trainer.batches.num_steps
    summed = worker.sum_over_workers(torch.stack(list(sums.values()))) / num_steps
    losses = dict(zip(sums, summed.tolist(), strict=True))
    _require_finite(losses, progress.epoch + 1)
    return losses, float(norms / num_steps)


def _clip(model: SraCl, largest: float | None) -> Tensor:
    """Scale gradients down to the norm `largest`; returns the norm before."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(parameters, largest, norm)
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
