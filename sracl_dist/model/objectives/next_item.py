"""The item that comes next, against the whole catalogue or a sample of it.

M trained positions, F later targets, T items of all rows together, V catalogue, S sampled items, R pairs of a position
and an item of its history.
"""

import numpy as np
import torch
from torch import Tensor

from sracl_dist.columns import PAD
from sracl_dist.config import Config
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives.interface import Encoded, Objective, Views
from sracl_dist.model.softmax import LaterTargets, Repeats, full_softmax_loss, sampled_softmax_loss
from sracl_dist.model.tables import SemanticTables


class NextItem(Objective):
    """Cross-entropy of h_t E^T against the item after t."""

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.settings = config.objectives.next_item
        self.dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32
        counts_V = tables.training_counts.astype(np.float64)
        weights_V = counts_V**self.settings.sampling_power
        weights_V[counts_V == 0] = 0.0
        shares_V = torch.from_numpy(weights_V / weights_V.sum())
        self.register_buffer("shares_V", shares_V.float(), persistent=False)

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "NextItem":
        """See `Objective.build`."""
        return cls(config, tables)

    def forward(self, batch: Batch, views: Views, encoded: Encoded) -> Tensor:  # noqa: ARG002
        """See `Objective.forward`; the mean is over all trained targets."""
        trained_M = torch.nonzero(batch.targets_T != PAD).squeeze(1)
        states_MD, targets_M = encoded.states_TD[trained_M], batch.targets_T[trained_M]
        if self.settings.softmax == "sampled":
            loss = self._sampled(states_MD, targets_M, encoded)
        else:
            candidates_CD, places_M = encoded.catalogue.candidates(encoded.table_VD, targets_M)
            repeats = self._repeats(batch, trained_M, encoded)
            later = self._later(batch, trained_M, encoded)
            loss = full_softmax_loss(states_MD, candidates_CD, places_M, repeats, later, self.dtype)
        return loss / max(1, batch.num_targets)

    def _sampled(self, states_MD: Tensor, targets_M: Tensor, encoded: Encoded) -> Tensor:
        shares_V = self.get_buffer("shares_V")
        sampled_S = torch.multinomial(shares_V, self.settings.num_sampled, replacement=True)
        log_expected_S = (shares_V[sampled_S] * self.settings.num_sampled).log()
        table_VD = encoded.table_VD
        return sampled_softmax_loss(
            states_MD,
            table_VD[targets_M],
            targets_M,
            table_VD[sampled_S],
            sampled_S,
            log_expected_S,
        )

    def _later(self, batch: Batch, trained_M: Tensor, encoded: Encoded) -> LaterTargets | None:
        if self.settings.horizon == 1:
            return None
        later_MF = batch.later_targets(trained_M, self.settings.horizon - 1)
        steps_F = torch.arange(1, self.settings.horizon, device=later_MF.device)
        weights_MF = (self.settings.horizon_discount**steps_F) * (later_MF != PAD)
        return LaterTargets(encoded.catalogue.place_V[later_MF].clamp(min=0), weights_MF)

    def _repeats(self, batch: Batch, trained_M: Tensor, encoded: Encoded) -> Repeats | None:
        bias = encoded.encoder.repeat_bias
        if bias is None:
            return None
        rows_R, items_R = batch.seen_before(trained_M)
        columns_R = encoded.catalogue.place_V[items_R]
        return Repeats(rows_R, columns_R, bias)
