"""The recommender in training: one encoder and the terms of its loss.

T items of all rows together, N items of a step, D width.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from sracl_dist.config import Config
from sracl_dist.model.catalogue import Catalogue
from sracl_dist.model.encoders import build_encoder
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives import OBJECTIVES, Encoded, Objective
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables

TOTAL = "total"


class SraCl(nn.Module):
    """L = L_next + alpha L_cross + beta L_intra, or the terms in objectives.terms (equation 6 of the paper)."""

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        by_rows = config.objectives.next_item.softmax == "sampled"
        self.encoder = build_encoder(config.model, tables, by_rows=by_rows)
        self.objectives = nn.ModuleDict(
            {name: OBJECTIVES[name].build(config, tables) for name in config.objectives.terms}
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """This worker's share of every term by name, unweighted, and of their weighted sum under `total`.

        The batch's rows and all views that the terms ask for pass through the encoder together.
        """
        views = {name: self.objective(name).views(batch) for name in self.objectives}
        parts = [batch.rows, *(view.rows for view in views.values())]
        rows = Rows.concatenate(parts)
        asked = [view.items for view in views.values() if view.items is not None]
        table = self.catalogue.table(torch.cat([rows.items_T, *asked]))
        states = self.encoder(table.placed(rows), table.rows_ND).split([len(part.items_T) for part in parts])
        terms = {}
        for (name, view), view_states_TD in zip(views.items(), states[1:], strict=True):
            encoded = Encoded(encoder=self.encoder, table=table, states_TD=states[0], view_states_TD=view_states_TD)
            terms[name] = self.objectives[name](batch, view, encoded)
        return self.with_total(terms)

    @property
    def catalogue(self) -> Catalogue:
        """The encoder's catalogue, which in training is the one that is learned."""
        return cast(Catalogue, self.encoder.catalogue)

    def weights(self) -> dict[str, Tensor]:
        """What is learned, by name."""
        return dict(self.named_parameters())

    def memory(self) -> dict[str, Tensor]:
        """What is remembered between steps but not learned, by name: the bank of users' states."""
        learned = self.weights().keys()
        return {name: value for name, value in self.state_dict().items() if name not in learned}

    def with_gradient(self) -> list[Tensor]:
        """What has a gradient after a backward pass: weights, and the embeddings that were read row by row."""
        touched = self.catalogue.touched
        candidates = [*self.parameters(), *([] if touched is None else [touched.values_ND])]
        return [value for value in candidates if value.grad is not None]

    def with_total(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The terms, and their weighted sum under `total`."""
        weighted = [self.objective(name).weight * value for name, value in terms.items()]
        return {**terms, TOTAL: torch.stack(weighted).sum()}

    def objective(self, name: str) -> Objective:
        """The term with this name."""
        return cast(Objective, self.objectives[name])
