"""Training in the reference's way, with a row for every prefix: the baseline of the product's.

B prefixes of a step.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.bench.prefix_batches import PrefixBatches
from sracl_dist.bench.row_per_prefix import RowPerPrefix
from sracl_dist.config import Config
from sracl_dist.model.sracl import TOTAL
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import make_trainer
from sracl_dist.train.worker import Worker


class PrefixTraining:
    """Steps of train.batch_rows prefixes, in one process, in float32 and at a constant learning rate.

    The product's trainer makes the model and its optimiser, so that weights begin where the product's begin.
    """

    def __init__(self, config: Config, sequences: Sequences, tables: SemanticTables, device: torch.device) -> None:
        trainer = make_trainer(config, sequences, tables, Worker(device=device))
        self.batches = PrefixBatches(sequences, config.model.max_length, config.train.batch_rows, config.run.seed)
        self.model = trainer.model.train()
        self._terms = RowPerPrefix(self.model, tables, config.model.max_length)
        self._optimiser, self._device = trainer.optimiser, device
        self._max_norm = config.train.max_gradient_norm

    def order(self, epoch: int) -> list[NDArray[np.integer]]:
        """Prefixes of every step of the epoch."""
        return self.batches.order(epoch)

    def train(self, rows: NDArray[np.integer]) -> int:
        """Train the prefixes [B] of one step; returns how many they are."""
        self.step(rows)
        return len(rows)

    def step(self, rows: NDArray[np.integer]) -> dict[str, Tensor]:
        """Train the prefixes [B] of one step; returns every term by name and their weighted sum under `total`."""
        terms = self._terms(self.batches.batch(rows).to(self._device))
        terms[TOTAL].backward()
        if self._max_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._max_norm)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        return {name: value.detach() for name, value in terms.items()}
