"""What an item is to the recommender: an embedding of its own, and where configured what its text says.

V catalogue, C candidates, M targets, K neighbours, D width, P width of the text vectors.
"""

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from sracl_dist.columns import MISSING, PAD
from sracl_dist.config.sections import ModelConfig
from sracl_dist.model.tables import SemanticTables

INITIAL_STD = 0.02
"""Standard deviation of initial weights, as in BERT and in RecBole, on which the reference builds."""


class Catalogue(nn.Module):
    """Learned representations of the items.

    With `model.item_text` an item is e_v = embedding_v + W t_v, t_v being its centred text vector. An item that never
    occurs in training has no embedding of its own: it borrows that of the nearest item by meaning that does, and where
    its neighbour list has none, its text alone places it. In training it is no candidate, since it could only lose.
    """

    candidates_C: Tensor
    """Items that the next-item softmax runs over, ascending."""
    place_V: Tensor
    """[V + 1]: index of each item among the candidates, -1 where it is none."""

    def __init__(self, config: ModelConfig, tables: SemanticTables) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tables.num_items + 1, config.width, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=INITIAL_STD)
        with torch.no_grad():
            self.embedding.weight[PAD].zero_()
        is_candidate_V = np.arange(tables.num_items + 1) != PAD
        self.text_projection: nn.Linear | None = None
        if config.item_text:
            is_candidate_V &= tables.training_counts > 0
            self._add_text(config, tables, is_candidate_V)
        place_V = np.where(is_candidate_V, np.cumsum(is_candidate_V) - 1, -1)
        self.register_buffer("candidates_C", torch.from_numpy(np.flatnonzero(is_candidate_V)), persistent=False)
        self.register_buffer("place_V", torch.from_numpy(place_V), persistent=False)

    def _add_text(self, config: ModelConfig, tables: SemanticTables, has_embedding_V: np.ndarray) -> None:
        centred_VP = tables.item_vectors.copy()
        centred_VP[1:] -= tables.item_vectors[has_embedding_V].mean(axis=0)
        self.text_projection = nn.Linear(centred_VP.shape[1], config.width, bias=False)
        nn.init.normal_(self.text_projection.weight, std=INITIAL_STD)
        self.register_buffer("text_VP", torch.from_numpy(centred_VP), persistent=False)
        lender_V = _lenders(tables.item_neighbours, has_embedding_V)
        self.register_buffer("lender_V", torch.from_numpy(lender_V), persistent=False)

    def forward(self) -> Tensor:
        """Representations [V + 1, D]; the row of PAD is zero and never learned."""
        if self.text_projection is None:
            return self.embedding.weight
        own_VD = self.embedding(self.get_buffer("lender_V"))
        return own_VD + cast(Tensor, self.text_projection(self.get_buffer("text_VP")))

    def candidates(self, table_VD: Tensor, targets_M: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [C, D] of the candidates in what `forward` returned, and the index of each target among them."""
        if len(self.candidates_C) == len(table_VD) - 1:
            return table_VD[1:], targets_M - 1
        return table_VD[self.candidates_C], self.place_V[targets_M]


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
