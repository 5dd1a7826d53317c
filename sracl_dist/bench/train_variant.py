"""A way of training under the clock.

M trained positions of a step, C candidates, D width, U users.
"""

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.bench.machine import seconds
from sracl_dist.bench.operations import count_operations
from sracl_dist.columns import PAD
from sracl_dist.config import Config
from sracl_dist.model.objectives import CrossSequence
from sracl_dist.model.softmax import full_softmax_loss
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import Trainer, make_trainer, train_step
from sracl_dist.train.worker import Worker

NUM_WARM_STEPS = 2
"""Steps before the first that is measured: the first ones make the optimiser's state and the caches."""
NUM_COUNTED_STEPS = 4
"""Steps whose operations are counted, and whose states the softmax apart is measured with."""


class Training(Protocol):
    """A model in training."""

    def order(self, epoch: int) -> list[NDArray[np.integer]]:
        """Rows of every step of the epoch."""

    def train(self, rows: NDArray[np.integer]) -> int:
        """Train the rows of one step; returns the number of targets."""


MakeTraining = Callable[[Config, Sequences, SemanticTables, torch.device], Training]


class HistoryTraining:
    """The product's trainer, a row per history; its bank is full, as in every epoch but the first."""

    def __init__(self, config: Config, sequences: Sequences, tables: SemanticTables, device: torch.device) -> None:
        self.trainer: Trainer = make_trainer(config, sequences, tables, Worker(device=device))
        self.trainer.model.train()
        _fill_bank(self.trainer)
        self._num_steps = 0

    def order(self, epoch: int) -> list[NDArray[np.integer]]:
        """Rows of every step of the epoch."""
        return self.trainer.batches.order(epoch)

    def train(self, rows: NDArray[np.integer]) -> int:
        """Train the rows of one step; returns the number of targets."""
        num_targets = train_step(self.trainer, self.trainer.parts(rows), self._num_steps)[2]
        self._num_steps += 1
        return num_targets


class Variant:
    """A training that is asked for steps, epoch after epoch."""

    def __init__(self, training: Training, device: torch.device) -> None:
        self._training, self._device = training, device
        self._steps = (rows for epoch in count() for rows in training.order(epoch))
        self.run(NUM_WARM_STEPS)
        self._step_s = seconds(lambda: self.run(1), device)

    def run(self, num_steps: int) -> int:
        """Train so many steps; returns the number of targets."""
        return sum(self._training.train(rows) for rows in islice(self._steps, num_steps))

    def examples_per_second(self, turn_s: float) -> float:
        """Targets trained per second, over as many steps as fit, at least one."""
        num_steps, num_targets = max(1, round(turn_s / self._step_s)), 0

        def turn() -> None:
            nonlocal num_targets
            num_targets = self.run(num_steps)

        turn_took_s = seconds(turn, self._device)
        self._step_s = turn_took_s / num_steps
        return num_targets / turn_took_s

    def seconds_per_step(self, turn_s: float) -> float:
        """Seconds of a step, over as many steps as fit, at least one."""
        self.examples_per_second(turn_s)
        return self._step_s

    def epoch_s(self) -> float:
        """Seconds of one whole epoch."""
        order = self._training.order(0)
        return seconds(lambda: [self._training.train(rows) for rows in order], self._device)

    def operations_per_example(self) -> float:
        """Floating point operations of the matrix products of a step, by target."""
        num_targets = 0

        def steps() -> None:
            nonlocal num_targets
            num_targets = self.run(NUM_COUNTED_STEPS)

        return count_operations(steps) / num_targets


class CatalogueSoftmax:
    """The softmax over the catalogue apart from the rest of a step, on the states of some steps."""

    def __init__(self, trainer: Trainer) -> None:
        self._device = trainer.worker.device
        self._inputs = list(_softmax_inputs(trainer))
        self._num_targets = sum(len(targets_M) for _, _, targets_M in self._inputs)
        self.seconds_per_example()

    @property
    def table_shape(self) -> tuple[int, int]:
        """Numbers of candidates C and of their columns D."""
        num_candidates, width = self._inputs[0][1].shape
        return num_candidates, width

    def seconds_per_example(self) -> float:
        """Time of loss and gradients by target."""
        return seconds(self._forwards_and_backwards, self._device) / self._num_targets

    def _forwards_and_backwards(self) -> None:
        for states_MD, candidates_CD, targets_M in self._inputs:
            full_softmax_loss(states_MD, candidates_CD, targets_M).backward()


@torch.no_grad()
def _softmax_inputs(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """States, candidates and targets as the term next_item has them."""
    encoder, catalogue = trainer.model.encoder, trainer.model.catalogue
    for rows in trainer.batches.order(0)[:NUM_COUNTED_STEPS]:
        batch = trainer.batches.batch(rows).to(trainer.worker.device)
        table = catalogue.table(batch.rows.items_T)
        is_trained_T = batch.targets_T != PAD
        states_MD = encoder(batch.rows, table.rows_ND)[is_trained_T]
        candidates_CD, targets_M = catalogue.candidates(table, batch.targets_T[is_trained_T])
        yield states_MD.requires_grad_(), candidates_CD.clone().requires_grad_(), targets_M


def _fill_bank(trainer: Trainer) -> None:
    for term in trainer.model.objectives.values():
        if isinstance(term, CrossSequence) and term.bank is not None:
            term.bank.write(torch.arange(len(term.bank.seen_U)), torch.randn_like(term.bank.states_UD))
