"""Two views of a history in which items are replaced by near ones (section 3.4 of the paper).

T items of all rows together, K neighbours, V catalogue, H histories.
"""

import numpy as np
import torch
from torch import Tensor

from sracl_dist.columns import MISSING
from sracl_dist.config import Config
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives.interface import Encoded, Objective, Views, two_view_contrast
from sracl_dist.model.rows import Rows
from sracl_dist.model.tables import SemanticTables, random_others


class IntraSequence(Objective):
    """InfoNCE between two views of a history, each with some of its items replaced by members of their lists."""

    neighbours_VK: Tensor
    num_neighbours_V: Tensor

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.settings = config.objectives.intra_sequence
        self.weight = self.settings.weight
        neighbours_VK = tables.item_neighbours[:, : self.settings.num_neighbours]
        if self.settings.neighbours == "random":
            neighbours_VK = random_others(neighbours_VK, 1, tables.num_items, config.run.seed)
        # A draw takes one of the first so many entries of a list, hence the missing ones go to its end.
        missing_VK = neighbours_VK == MISSING
        order_VK = np.argsort(missing_VK, axis=1, kind="stable")
        compact_VK = np.take_along_axis(neighbours_VK, order_VK, axis=1)
        self.register_buffer("neighbours_VK", torch.from_numpy(compact_VK), persistent=False)
        self.register_buffer("num_neighbours_V", torch.from_numpy((~missing_VK).sum(axis=1)), persistent=False)

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "IntraSequence":
        """See `Objective.build`."""
        return cls(config, tables)

    def views(self, batch: Batch) -> Views:
        """Both views of every history."""
        rows = batch.rows.select(batch.histories_H)
        twice_T = torch.cat([self.substituted(rows.items_T), self.substituted(rows.items_T)])
        return Views(rows=Rows(items_T=twice_T, lengths_B=rows.lengths_B.repeat(2)))

    def forward(self, batch: Batch, views: Views, encoded: Encoded) -> Tensor:
        """See `Objective.forward`; the mean is over both views of every history."""
        first_HD, second_HD = encoded.view_states_TD[views.rows.last_B].chunk(2)
        return two_view_contrast(first_HD, second_HD, batch.histories_per_rank, batch.rank, self.settings)

    def substituted(self, items_T: Tensor) -> Tensor:
        """A copy in which each item is, with probability replacement_rate, a random member of its neighbour list.

        An item without neighbours stays as it is.
        """
        num_T = self.num_neighbours_V[items_T]
        chosen_T = torch.rand(items_T.shape, device=items_T.device) < self.settings.replacement_rate
        # The lower bound guards against a product that rounds up to the count itself.
        slots_T = (torch.rand(items_T.shape, device=items_T.device) * num_T).long()
        slots_T = torch.minimum(slots_T, (num_T - 1).clamp(min=0))
        return torch.where(chosen_T & (num_T > 0), self.neighbours_VK[items_T, slots_T].long(), items_T)
