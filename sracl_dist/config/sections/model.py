"""The sequence encoder."""

from dataclasses import dataclass
from typing import Literal

from sracl_dist.config.sections.fields import require


@dataclass(kw_only=True)
class ModelConfig:
    """The sequence encoder; paper settings are the defaults."""

    encoder: str = "sasrec"
    """Sequence encoder, by its name in sracl_dist/model/encoders/: sasrec, gru4rec or hstu."""
    width: int = 64
    """Width D of item embeddings and hidden states."""
    num_layers: int = 2
    """Layers of the encoder."""
    num_heads: int = 2
    """sasrec, hstu: attention heads; must divide width."""
    feedforward_width: int = 256
    """sasrec: width of the feed-forward layer; gru4rec: width of the recurrent state."""
    norm: Literal["post", "pre"] = "post"
    """sasrec: layer norm behind each block, as in the paper, or before it."""
    dropout: float = 0.5
    """Dropout on embeddings and hidden states, and on the weights of the synthesis."""
    attention_dropout: float = 0.5
    """sasrec: dropout on attention weights."""
    max_length: int = 20
    """Longest history the encoder sees."""
    item_text: bool = False
    """Add a projection of the item's text vector to its embedding; an item never seen in training takes the embedding
    of its nearest item by meaning."""
    repeat_bias: bool = False
    """Learn a number that is added to the score of every item that is in the history already."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("width", "num_layers", "num_heads", "feedforward_width", "max_length"):
            require(getattr(self, name) >= 1, f"model.{name}", getattr(self, name), "use 1 or more")
        for name in ("dropout", "attention_dropout"):
            require(0 <= getattr(self, name) < 1, f"model.{name}", getattr(self, name), "use 0 or more and below 1")
        divides = self.width % self.num_heads == 0
        require(divides, "model.num_heads", self.num_heads, f"use a divisor of model.width={self.width}")
