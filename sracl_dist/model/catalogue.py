"""What an item is to the recommender: an embedding of its own, and where configured what its text says.

V catalogue, C candidates, M targets, N items of a step, K neighbours, D width, P width of the text vectors.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sracl_dist.columns import MISSING, PAD
from sracl_dist.config.sections import ModelConfig
from sracl_dist.model.initial import INITIAL_STD
from sracl_dist.model.item_table import ItemTable, TouchedRows
from sracl_dist.model.item_text import ItemText
from sracl_dist.model.tables import SemanticTables


class Catalogue(nn.Module):
    """Learned representations of the items.

    With `model.item_text` an item is e_v = embedding_v + W t_v, t_v being its centred text vector. An item that never
    occurs in training has no embedding of its own: it borrows that of the nearest item by meaning that does, and where
    its neighbour list has none, its text alone places it. In training it is no candidate, since it could only lose.

    With `by_rows` a step reads the rows of its items only, and what is asked of them is found in `touched` instead of
    the gradient of the whole table, which there is none of; the optimiser must know (see train/rowwise.py).
    """

    candidates_C: Tensor
    """Items that the next-item softmax runs over, ascending."""
    place_V: Tensor
    """[V + 1]: index of each item among the candidates, -1 where it is none."""

    def __init__(self, config: ModelConfig, tables: SemanticTables, *, by_rows: bool = False) -> None:
        super().__init__()
        self.by_rows = by_rows
        self.touched: TouchedRows | None = None
        self.embedding = nn.Embedding(tables.num_items + 1, config.width, padding_idx=PAD)
        self.embedding.weight.requires_grad_(not by_rows)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
        self.read: Callable[[Tensor], Tensor] = self._read
        is_candidate_V = np.arange(tables.num_items + 1) != PAD
        self.text: ItemText | None = None
        if config.item_text:
            is_candidate_V &= tables.training_counts > 0
            self.text = ItemText(tables.item_vectors, is_candidate_V, config.width, on_device=not by_rows)
            lender_V = _lenders(tables.item_neighbours, is_candidate_V)
            self.register_buffer("lender_V", torch.from_numpy(lender_V), persistent=False)
        place_V = np.where(is_candidate_V, np.cumsum(is_candidate_V) - 1, -1)
        self.register_buffer("candidates_C", torch.from_numpy(np.flatnonzero(is_candidate_V)), persistent=False)
        self.register_buffer("place_V", torch.from_numpy(place_V), persistent=False)

    def forward(self) -> Tensor:
        """Representations [V + 1, D] of all items; the row of PAD is zero and never learned."""
        if self.text is None:
            return self.embedding.weight
        return self.text.added_to(self.embedding(self.get_buffer("lender_V")))

    def table(self, items: Tensor) -> ItemTable:
        """Representations of at least these items, made once for a step of training."""
        if not self.by_rows:
            return ItemTable(rows_ND=self())
        items_N = torch.unique(torch.cat([items.new_tensor([PAD]), items.flatten()]))
        if self.text is None:
            return ItemTable(rows_ND=self._touch(items_N), items_N=items_N)
        lenders, place_N = torch.unique(self.get_buffer("lender_V")[items_N], return_inverse=True)
        own_ND = F.embedding(place_N, self._touch(lenders), padding_idx=PAD)
        return ItemTable(rows_ND=self.text.added_to(own_ND, items_N), items_N=items_N)

    def candidates(self, table: ItemTable, targets_M: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [C, D] of the candidates in a table of all items, and the index of each target among them."""
        if len(self.candidates_C) == len(table.rows_ND) - 1:
            return table.rows_ND[1:], targets_M - 1
        return table.rows_ND[self.candidates_C], self.place_V[targets_M]

    def _read(self, items_N: Tensor) -> Tensor:
        return self.embedding.weight[items_N]

    def _touch(self, items_N: Tensor) -> Tensor:
        values_ND = self.read(items_N).detach()
        if torch.is_grad_enabled():
            self.touched = TouchedRows(items_N=items_N, values_ND=values_ND.requires_grad_())
        return values_ND


def _lenders(neighbours_VK: np.ndarray, has_embedding_V: np.ndarray) -> np.ndarray:
    """Item whose embedding each item has: its own, or its nearest neighbour's that has one, or that of PAD, zero."""
    may_lend_VK = (neighbours_VK != MISSING) & has_embedding_V[np.maximum(neighbours_VK, PAD)]
    nearest_V = neighbours_VK[np.arange(len(neighbours_VK)), may_lend_VK.argmax(axis=1)]
    borrowed_V = np.where(may_lend_VK.any(axis=1), nearest_V, PAD)
    return np.where(has_embedding_V, np.arange(len(has_embedding_V)), borrowed_V)


class FixedCatalogue(nn.Module):
    """Representations as training left them; all that inference needs."""

    table_VD: Tensor

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__()
        self.register_buffer("table_VD", torch.zeros(num_items + 1, config.width))

    def forward(self) -> Tensor:
        """See `Catalogue.forward`."""
        return self.table_VD
