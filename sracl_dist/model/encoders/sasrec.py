"""SASRec: a causal transformer with learned positions (Kang and McAuley 2018).

T items of all rows together, D width, b rows of a group, L positions, H heads, E width of a head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sracl_dist.config.sections import ModelConfig
from sracl_dist.model.catalogue import Catalogue, FixedCatalogue
from sracl_dist.model.dropout import Dropout
from sracl_dist.model.encoders.interface import GroupedAttention, SequenceEncoder, initialise
from sracl_dist.model.rows import Rows

LAYER_NORM_EPSILON = 1e-12
"""As in RecBole."""
ATTENTION_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN, which makes a plan for every new shape; the groups of rows have other shapes in every step."""


class SASRec(SequenceEncoder):
    """Transformer with layer norm behind each block, as in RecBole and the reference, or before it (model.norm)."""

    def __init__(self, config: ModelConfig, catalogue: Catalogue | FixedCatalogue) -> None:
        super().__init__(config, catalogue)
        self.position_embedding = nn.Embedding(config.max_length, config.width)
        self.norm = _norm(config)
        self.dropout = Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        for module in (self.position_embedding, self.blocks):
            module.apply(initialise)
        self.norm_first = config.norm == "pre"

    def forward(self, rows: Rows, table_VD: Tensor) -> Tensor:
        """See `SequenceEncoder.forward`."""
        states_TD = self.embed(rows, table_VD) + self.position_embedding(rows.positions_T)
        if self.norm_first:
            states_TD = self.dropout(states_TD)
            for block in self.blocks:
                states_TD = block(states_TD, rows)
            normed_TD: Tensor = self.norm(states_TD)
            return normed_TD
        states_TD = self.dropout(self.norm(states_TD))
        for block in self.blocks:
            states_TD = block(states_TD, rows)
        return states_TD


class _Block(GroupedAttention):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.norm_first = config.norm == "pre"
        self.attention_dropout = Dropout(config.attention_dropout)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.attention_output = nn.Linear(config.width, config.width)
        self.attention_norm = _norm(config)
        self.widen = nn.Linear(config.width, config.feedforward_width)
        self.narrow = nn.Linear(config.feedforward_width, config.width)
        self.feedforward_norm = _norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(self, states_TD: Tensor, rows: Rows) -> Tensor:
        if self.norm_first:
            states_TD = states_TD + self.dropout(self._attention(self.attention_norm(states_TD), rows))
            return states_TD + self.dropout(self._feedforward(self.feedforward_norm(states_TD)))
        states_TD = self.attention_norm(states_TD + self.dropout(self._attention(states_TD, rows)))
        normed_TD: Tensor = self.feedforward_norm(states_TD + self.dropout(self._feedforward(states_TD)))
        return normed_TD

    def _attention(self, states_TD: Tensor, rows: Rows) -> Tensor:
        attended_TD: Tensor = self.attention_output(self.attend(rows, self.query_key_value(states_TD)))
        return attended_TD

    def _feedforward(self, states_TD: Tensor) -> Tensor:
        narrowed_TD: Tensor = self.narrow(F.gelu(self.widen(states_TD)))
        return narrowed_TD

    def attend_group(self, projected_bLE: Tensor) -> Tensor:
        num_rows, length, width = projected_bLE.shape
        split = projected_bLE.view(num_rows, length, 3, self.num_heads, width // (3 * self.num_heads))
        query_bHLE, key_bHLE, value_bHLE = split.permute(2, 0, 3, 1, 4).unbind(0)
        return self._weighted(query_bHLE, key_bHLE, value_bHLE).transpose(1, 2).flatten(2)

    def _weighted(self, query_bHLE: Tensor, key_bHLE: Tensor, value_bHLE: Tensor) -> Tensor:
        rate = self.attention_dropout.rate if self.training else 0.0
        if rate == 0 or query_bHLE.device.type != "cpu":
            with sdpa_kernel(ATTENTION_KERNELS):
                return F.scaled_dot_product_attention(query_bHLE, key_bHLE, value_bHLE, dropout_p=rate, is_causal=True)
        # On a CPU PyTorch has no fused kernel with dropout, and this one's masks are cheaper than those of its formula.
        length, width = query_bHLE.shape[2:]
        scores_bHLL = query_bHLE @ key_bHLE.transpose(-1, -2) * width**-0.5
        later_LL = torch.ones(length, length, dtype=torch.bool).triu(1)
        weights_bHLL = scores_bHLL.masked_fill(later_LL, float("-inf")).softmax(dim=-1)
        return self.attention_dropout(weights_bHLL) @ value_bHLE


def _norm(config: ModelConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
