"""GRU4Rec: a recurrent network over the items (Hidasi et al. 2016, as in RecBole).

B rows, T items of all rows together, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from sracl_dist.config.sections import ModelConfig
from sracl_dist.model.catalogue import Catalogue, FixedCatalogue
from sracl_dist.model.dropout import Dropout
from sracl_dist.model.encoders.interface import SequenceEncoder, initialise
from sracl_dist.model.rows import Rows


class GRU4Rec(SequenceEncoder):
    """Dropout on the item embeddings, GRU layers of width model.feedforward_width, a linear layer back to width D."""

    def __init__(self, config: ModelConfig, catalogue: Catalogue | FixedCatalogue) -> None:
        super().__init__(config, catalogue)
        self.dropout = Dropout(config.dropout)
        self.recurrent = nn.GRU(config.width, config.feedforward_width, config.num_layers)
        self.output = nn.Linear(config.feedforward_width, config.width)
        for name, parameter in self.recurrent.named_parameters():
            if "weight" in name:
                nn.init.xavier_uniform_(parameter)
        self.output.apply(initialise)

    def forward(self, rows: Rows, table_VD: Tensor) -> Tensor:
        """See `SequenceEncoder.forward`."""
        embedded_TD = self.dropout(self.embed(rows, table_VD))
        if len(rows) == 0:
            # There is no step to take, but every weight must have a gradient, which other workers wait for.
            return embedded_TD + 0.0 * torch.stack([weight.sum() for weight in self.parameters()]).sum()
        by_position_T, rows_per_position_L = _steps(rows)
        packed = PackedSequence(embedded_TD[by_position_T], rows_per_position_L)
        hidden, _ = self.recurrent(packed)
        states_TD: Tensor = self.output(hidden.data[torch.argsort(by_position_T)])
        return states_TD


def _steps(rows: Rows) -> tuple[Tensor, Tensor]:
    """Places [T] of all first items, then of all second ones, and so on, longer rows first; and how many of each.

    This is the order of `PackedSequence`, reached without a padded tensor in between.
    """
    place_of_row_B = torch.empty(len(rows), dtype=torch.int64)
    place_of_row_B[torch.argsort(rows.lengths_B, descending=True, stable=True)] = torch.arange(len(rows))
    positions_T = rows.positions_T.cpu()
    rank_T = positions_T * len(rows) + place_of_row_B.repeat_interleave(rows.lengths_B)
    return torch.argsort(rank_T).to(rows.device), torch.bincount(positions_T)
