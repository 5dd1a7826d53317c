"""The item that comes next, against the whole catalogue or a sample of it.

M trained positions, F later targets, T items of all rows together, S sampled items, R pairs of a position
and an item of its history.
"""

import torch
from torch import Tensor

from sracl_dist.columns import PAD
from sracl_dist.config import Config
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives.interface import Encoded, Objective, Views, no_rows
from sracl_dist.model.sampled_softmax import sampled_softmax_loss
from sracl_dist.model.sampling import ItemSampler, Sample
from sracl_dist.model.softmax import LaterTargets, Repeats, full_softmax_loss
from sracl_dist.model.tables import SemanticTables
from sracl_dist.precision import products_dtype


class NextItem(Objective):
    """Cross-entropy of h_t E^T against the item after t."""

    def __init__(self, config: Config, tables: SemanticTables) -> None:
        super().__init__()
        self.settings = config.objectives.next_item
        self.precision = config.train.precision
        self.sampler: ItemSampler | None = None
        if self.settings.softmax == "sampled":
            self.sampler = ItemSampler(
                tables.training_counts,
                tables.target_counts,
                power=self.settings.sampling_power,
                num_sampled=self.settings.num_sampled,
                in_batch_share=self.settings.in_batch_share,
            )

    @classmethod
    def build(cls, config: Config, tables: SemanticTables) -> "NextItem":
        """See `Objective.build`."""
        return cls(config, tables)

    def views(self, batch: Batch) -> Views:
        """No rows; with the sampled softmax its items, and as notes the sample."""
        if self.sampler is None:
            return super().views(batch)
        targets_M = batch.targets_T[batch.targets_T != PAD]
        sample = self.sampler.draw(targets_M)
        return Views(rows=no_rows(batch), items=torch.cat([targets_M, sample.items_S]), notes=sample)

    def forward(self, batch: Batch, views: Views, encoded: Encoded) -> Tensor:
        """See `Objective.forward`; the mean is over all trained targets."""
        trained_M = torch.nonzero(batch.targets_T != PAD).squeeze(1)
        states_MD, targets_M = encoded.states_TD[trained_M], batch.targets_T[trained_M]
        dtype = products_dtype(self.precision, states_MD.device)
        if self.sampler is not None:
            sample: Sample = views.notes
            of = encoded.table.of
            loss = sampled_softmax_loss(states_MD, of(targets_M), targets_M, of(sample.items_S), sample, dtype)
        else:
            candidates_CD, places_M = encoded.catalogue.candidates(encoded.table, targets_M)
            repeats = self._repeats(batch, trained_M, encoded)
            later = self._later(batch, trained_M, encoded)
            loss = full_softmax_loss(states_MD, candidates_CD, places_M, repeats, later, dtype)
        return loss / max(1, batch.num_targets)

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
