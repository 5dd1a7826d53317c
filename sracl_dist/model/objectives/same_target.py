"""A prefix against another prefix with the same next item (DuoRec, Qiu et al. 2022).

T items of all rows together, M anchors of this worker, C candidates of all workers, D width.
"""

import numpy as np
import torch
from torch import Tensor

from sracl_dist.columns import PAD
from sracl_dist.config import Config
from sracl_dist.model.gather import gather_rows
from sracl_dist.model.inputs import Batch
from sracl_dist.model.losses import info_nce
from sracl_dist.model.objectives.interface import Encoded, Objective, Views, one_hot
from sracl_dist.model.tables import SemanticTables


class SameTarget(Objective):
    """InfoNCE between the state before a target and the state of another history before the same item.

    One trained position of each row is drawn as an anchor. Its positive is drawn from all training positions with the
    same target; where there is no other, it is the anchor's own prefix, encoded again under other dropout, which is
    DuoRec's unsupervised positive. Negatives are the anchors and positives of the batch's other rows, on all workers,
    without those of the same target.
    """

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.settings = config.objectives.same_target
        self.weight = self.settings.weight
        self.max_length = config.model.max_length
        self.tables = tables

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "SameTarget":
        """See `Objective.build`."""
        return cls(config, tables)

    def views(self, batch: Batch) -> Views:
        """A prefix with the same target for one position of each row that trains any; notes: the positions [M]."""
        anchors_M = _one_trained_position_per_row(batch)
        row_M = torch.searchsorted(batch.rows.starts_B, anchors_M, right=True) - 1
        own_places_M = batch.places_B[row_M] + anchors_M - batch.rows.starts_B[row_M] + 1
        draws_M = torch.rand(len(anchors_M), dtype=torch.float64).numpy()
        places_M = self.tables.same_target_places(own_places_M.numpy(), draws_M)
        return Views(rows=self.tables.rows_before(places_M, self.max_length).to(batch.rows.device), notes=anchors_M)

    def forward(self, batch: Batch, views: Views, encoded: Encoded) -> Tensor:
        """See `Objective.forward`; the mean is over the anchors of all workers."""
        anchors_MD = encoded.states_TD[views.notes.to(batch.rows.device)]
        positives_MD = encoded.view_states_TD[views.rows.last_B]
        targets_M = batch.targets_T[views.notes.to(batch.rows.device)]
        counts, rank = batch.rows_with_targets_per_rank, batch.rank
        targets_C = gather_rows(targets_M[:, None].double(), counts, rank).squeeze(1).repeat(2)
        candidates = torch.cat([gather_rows(positives_MD, counts, rank), gather_rows(anchors_MD, counts, rank)])
        start = sum(counts[:rank])
        positive_M = torch.arange(start, start + counts[rank], device=candidates.device)
        same_target_MC = targets_M[:, None] == targets_C
        loss = info_nce(
            anchors_MD,
            candidates,
            positive_M,
            similarity=self.settings.similarity,
            temperature=self.settings.temperature,
            excluded_MC=same_target_MC & ~one_hot(positive_M, len(candidates)),
        )
        return loss / max(1, sum(counts))


def _one_trained_position_per_row(batch: Batch) -> Tensor:
    """Places [M] among the batch's items, ascending, in the CPU's memory."""
    trained = torch.nonzero(batch.targets_T.cpu() != PAD).squeeze(1)
    row = torch.searchsorted(batch.rows.starts_B, trained, right=True) - 1
    order = torch.argsort(row + torch.rand(len(row), dtype=torch.float64))
    _, first = np.unique(row[order].numpy(), return_index=True)
    return trained[order[torch.from_numpy(first)]]
