"""What every term of the loss is: it may ask for rows of its own to be encoded, and yields one number.

B rows, T items of all rows together, D width, H histories of this worker, G of all workers.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from sracl_dist.config import Config
from sracl_dist.config.sections import ContrastConfig
from sracl_dist.model.catalogue import Catalogue
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.gather import gather_rows
from sracl_dist.model.inputs import Batch
from sracl_dist.model.item_table import ItemTable
from sracl_dist.model.losses import info_nce
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables


@dataclass(frozen=True, kw_only=True)
class Views:
    """Rows that a term wants encoded beside the batch's own, and what it must remember about them until then."""

    rows: Rows
    items: Tensor | None = None
    """Items whose representations the term needs itself."""
    notes: Any = None


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """What a step has computed when the terms are asked."""

    encoder: SequenceEncoder
    table: ItemTable
    """Representations of the items."""
    states_TD: Tensor
    """States of all items of the batch's rows."""
    view_states_TD: Tensor
    """States of all items of the term's own views; empty where it has none."""

    @property
    def catalogue(self) -> Catalogue:
        """The encoder's catalogue, which in training is the one that is learned."""
        return cast(Catalogue, self.encoder.catalogue)


class Objective(nn.Module, ABC):
    """One term of the loss. What it yields is this worker's share: the sum over workers is the batch's mean."""

    weight = 1.0
    """What the term is multiplied with in the total."""

    @classmethod
    @abstractmethod
    def build(cls, config: Config, tables: SemanticTables) -> "Objective":
        """From the configuration and those tables that the term needs."""

    def views(self, batch: Batch) -> Views:
        """Rows to be encoded together with the batch's own, in the same pass; `forward` gets them back. None here."""
        return Views(rows=no_rows(batch))

    @abstractmethod
    def forward(self, batch: Batch, views: Views, encoded: Encoded) -> Tensor:
        """This worker's share of the term, a scalar; every worker must call it."""


def no_rows(batch: Batch) -> Rows:
    """What a term that has no views wants encoded."""
    return batch.rows.select(torch.zeros(0, dtype=torch.int64))


def two_view_contrast(
    first_HD: Tensor, second_HD: Tensor, counts: Sequence[int], rank: int, settings: ContrastConfig
) -> Tensor:
    """This worker's share of the InfoNCE between two views of each history.

    Each view is an anchor for the other; negatives are both views of the batch's other histories, on all workers.

    Args:
        first_HD: states of the first views of this worker's histories.
        second_HD: states of the second ones.
        counts: number of histories of every worker.
        rank: this worker.
        settings: similarity and temperature.
    """
    num_histories = sum(counts)
    candidates = torch.cat([gather_rows(first_HD, counts, rank), gather_rows(second_HD, counts, rank)])
    start = sum(counts[:rank])
    first_H = torch.arange(start, start + counts[rank], device=candidates.device)
    second_H = first_H + num_histories
    loss = info_nce(
        torch.cat([first_HD, second_HD]),
        candidates,
        torch.cat([second_H, first_H]),
        similarity=settings.similarity,
        temperature=settings.temperature,
        excluded_MC=one_hot(torch.cat([first_H, second_H]), len(candidates)),
    )
    return loss / max(1, 2 * num_histories)


def one_hot(columns_M: Tensor, num_columns: int) -> Tensor:
    """True [M, C] in one column of each row."""
    return columns_M[:, None] == torch.arange(num_columns, device=columns_M.device)
