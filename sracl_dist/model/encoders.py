"""Sequence encoders: items to states, where a state depends on its own and earlier items only.

B rows, L positions, D width, H heads, V catalogue. A new encoder is a subclass and a line in ENCODERS.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sracl_dist.columns import PAD
from sracl_dist.config.sections import ModelConfig
from sracl_dist.errors import ConfigError

INITIAL_STD = 0.02
"""Standard deviation of initial weights, as in BERT and in RecBole, on which the reference builds."""
LAYER_NORM_EPSILON = 1e-12
"""As in RecBole."""


class SequenceEncoder(nn.Module, ABC):
    """A causal encoder and the item embeddings it shares with the scoring of the catalogue."""

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__()
        self.num_items = num_items
        self.max_length = config.max_length
        self.item_embedding = nn.Embedding(num_items + 1, config.width, padding_idx=PAD)

    @abstractmethod
    def forward(self, items_BL: Tensor) -> Tensor:
        """Items (int64, 0..V, PAD on the right, L at most max_length) to states [B, L, D]; those at PAD mean nothing.

        The state at position t is a function of positions 0..t.
        """

    def catalogue(self) -> Tensor:
        """Embeddings [V, D] of the items 1..V; PAD is not among them and can therefore never be scored."""
        return self.item_embedding.weight[1:]


class SASRec(SequenceEncoder):
    """Transformer with learned positions and layer norm after each block (Kang and McAuley 2018, as in RecBole)."""

    def __init__(self, config: ModelConfig, num_items: int) -> None:
        super().__init__(config, num_items)
        self.position_embedding = nn.Embedding(config.max_length, config.width)
        self.norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.apply(_initialise)

    def forward(self, items_BL: Tensor) -> Tensor:
        """See `SequenceEncoder.forward`."""
        positions_L = torch.arange(items_BL.shape[1], device=items_BL.device)
        embedded_BLD = self.item_embedding(items_BL) + self.position_embedding(positions_L)
        states_BLD = self.dropout(self.norm(embedded_BLD))
        for block in self.blocks:
            states_BLD = block(states_BLD)
        return states_BLD


class _Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.attention_dropout = config.dropout
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.attention_output = nn.Linear(config.width, config.width)
        self.attention_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.widen = nn.Linear(config.width, config.feedforward_width)
        self.narrow = nn.Linear(config.feedforward_width, config.width)
        self.feedforward_norm = nn.LayerNorm(config.width, eps=LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states_BLD: Tensor) -> Tensor:
        states_BLD = self.attention_norm(states_BLD + self.dropout(self._attend(states_BLD)))
        widened_BLF = F.gelu(self.widen(states_BLD))
        return self.feedforward_norm(states_BLD + self.dropout(self.narrow(widened_BLF)))

    def _attend(self, states_BLD: Tensor) -> Tensor:
        num_rows, length, width = states_BLD.shape
        split = self.query_key_value(states_BLD).view(num_rows, length, 3, self.num_heads, width // self.num_heads)
        query_BHLE, key_BHLE, value_BHLE = split.permute(2, 0, 3, 1, 4).unbind(0)
        attended_BHLE = F.scaled_dot_product_attention(
            query_BHLE,
            key_BHLE,
            value_BHLE,
            dropout_p=self.attention_dropout if self.training else 0.0,
            is_causal=True,
        )
        return self.attention_output(attended_BHLE.transpose(1, 2).reshape(num_rows, length, width))


ENCODERS: dict[str, type[SequenceEncoder]] = {"sasrec": SASRec}


def encoder_class(name: str) -> type[SequenceEncoder]:
    """The encoder with this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in ENCODERS:
        raise ConfigError(f"model.encoder is {name!r}; use one of {', '.join(ENCODERS)}.")
    return ENCODERS[name]


def build_encoder(config: ModelConfig, num_items: int) -> SequenceEncoder:
    """A new encoder for a catalogue of `num_items`, its weights drawn from torch's random state.

    Raises:
        ConfigError: the name is unknown.
    """
    return encoder_class(config.encoder)(config, num_items)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
