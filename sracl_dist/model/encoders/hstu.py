"""HSTU: gated pointwise attention with a learned bias per distance (Zhai et al. 2024, equations 1 to 3).

T items of all rows together, D width, b rows of a group, L positions, H heads, E width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sracl_dist.config.sections import ModelConfig
from sracl_dist.model.catalogue import Catalogue, FixedCatalogue
from sracl_dist.model.dropout import Dropout
from sracl_dist.model.encoders.interface import GroupedAttention, SequenceEncoder, initialise
from sracl_dist.model.rows import Rows

LAYER_NORM_EPSILON = 1e-6
"""As in the authors' code."""


class HSTU(SequenceEncoder):
    """Layers whose attention weights are SiLU of the scores, not a softmax, and whose output is gated elementwise.

    Without a softmax the strength of what is found counts, not only its share; the gate takes the place of a
    feed-forward layer, hence model.feedforward_width is not used.
    """

    def __init__(self, config: ModelConfig, catalogue: Catalogue | FixedCatalogue) -> None:
        super().__init__(config, catalogue)
        self.position_embedding = nn.Embedding(config.max_length, config.width)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        for module in (self.position_embedding, self.blocks):
            module.apply(initialise)

    def forward(self, rows: Rows, table_VD: Tensor) -> Tensor:
        """See `SequenceEncoder.forward`."""
        embedded_TD = self.embed(rows, table_VD)
        states_TD = self.dropout(embedded_TD + self.position_embedding(rows.positions_T))
        for block in self.blocks:
            states_TD = block(states_TD, rows)
        normed_TD: Tensor = self.norm(states_TD)
        return normed_TD


class _Block(GroupedAttention):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.max_length = config.max_length
        self.input_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.attended_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.project = nn.Linear(config.width, 4 * config.width)
        self.output = nn.Linear(config.width, config.width)
        self.distance_bias = nn.Parameter(torch.zeros(config.max_length))
        self.dropout = Dropout(config.dropout)

    def forward(self, states_TD: Tensor, rows: Rows) -> Tensor:
        projected_TE = F.silu(self.project(self.input_norm(states_TD)))
        gate_TD, attended_TE = projected_TE.split([states_TD.shape[1], 3 * states_TD.shape[1]], dim=1)
        gated_TD = self.attended_norm(self.attend(rows, attended_TE)) * gate_TD
        added_TD: Tensor = states_TD + self.output(self.dropout(gated_TD))
        return added_TD

    def attend_group(self, projected_bLE: Tensor) -> Tensor:
        num_rows, length, width = projected_bLE.shape
        split = projected_bLE.view(num_rows, length, 3, self.num_heads, width // (3 * self.num_heads))
        query_bHLE, key_bHLE, value_bHLE = split.permute(2, 0, 3, 1, 4).unbind(0)
        positions_L = torch.arange(length, device=projected_bLE.device)
        distance_LL = positions_L[:, None] - positions_L
        bias_LL = self.distance_bias[distance_LL.clamp(min=0)]
        weights_bHLL = F.silu(query_bHLE @ key_bHLE.transpose(-1, -2) + bias_LL) / self.max_length
        weights_bHLL = weights_bHLL.masked_fill(distance_LL < 0, 0.0)
        return (weights_bHLL @ value_bHLE).transpose(1, 2).flatten(2)
