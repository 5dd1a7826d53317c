"""The recommender in training: one encoder and the terms of its loss.

B rows, L positions, D width.
"""

from typing import cast

import torch
from torch import Tensor, nn

from sracl_dist.config import Config
from sracl_dist.model.encoders import build_encoder
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives import OBJECTIVES, Objective
from sracl_dist.model.tables import SemanticTables

TOTAL = "total"


class SraCl(nn.Module):
    """L = L_next + alpha L_cross + beta L_intra, or the terms in objectives.terms (equation 6 of the paper)."""

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.encoder = build_encoder(config.model, tables.num_items)
        self.objectives = nn.ModuleDict(
            {name: OBJECTIVES[name].build(config, tables) for name in config.objectives.terms}
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This worker's share of every term by name, unweighted, and of their weighted sum under `total`."""
        states_BLD = self.encoder(batch.items_BL)
        terms = {name: term(batch, self.encoder, states_BLD) for name, term in self.objectives.items()}
        weighted = [cast(Objective, self.objectives[name]).weight * value for name, value in terms.items()]
        return terms | {TOTAL: torch.stack(weighted).sum()}

    def weights(self) -> dict[str, Tensor]:
        """What is learned, by name."""
        return dict(self.named_parameters())

    def memory(self) -> dict[str, Tensor]:
        """What is remembered between steps but not learned, by name: the bank of users' states."""
        learned = self.weights().keys()
        return {name: value for name, value in self.state_dict().items() if name not in learned}
