"""From texts to vectors, and from vectors to neighbours."""

from dataclasses import dataclass
from typing import Literal

from sracl_dist.config.sections.fields import neutral, require


@dataclass(kw_only=True)
class EmbedConfig:
    """embed: a text encoder turns profiles and raw texts into unit vectors."""

    model: str = "package:all-minilm-l6-v2"
    """Hugging Face id, local folder, or `package:` and a name of docs/models.md."""
    text: Literal["raw_and_profile", "profile", "raw"] = "raw_and_profile"
    """What is encoded: the item's or history's own text, the profile, or both; without a profile, the raw text."""
    items_per_user: int = 20
    """How many of the latest training items stand for a user in the raw text."""
    max_tokens: int = 256
    """Texts are cut to this many tokens, which must not exceed what the encoder was trained for."""
    shard_rows: int = neutral(1024)
    """Rows that are committed together."""
    batch_rows: int = neutral(64)
    """Texts encoded at a time."""
    num_workers: int = neutral(1)
    """Encoders that run side by side, one GPU each where the cluster has GPUs."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("items_per_user", "shard_rows", "batch_rows", "num_workers"):
            require(getattr(self, name) >= 1, f"embed.{name}", getattr(self, name), "use 1 or more")
        require(self.max_tokens >= 8, "embed.max_tokens", self.max_tokens, "use 8 or more")


@dataclass(kw_only=True)
class NeighboursConfig:
    """neighbours: for every item and every user the nearest others by cosine."""

    num_neighbours: int = 10
    """Length of every neighbour list (k)."""
    num_sampled: int = 1000
    """Rows whose neighbours are searched again by plain numpy to measure recall."""
    min_recall: float = 0.99
    """The stage fails when the measured recall@k is lower."""
    num_index_shards: int = neutral(1)
    """Parts of the table held by separate workers."""
    query_block_rows: int = neutral(16_384)
    """Queries sent to every part at a time; each block is committed on its own."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_neighbours", "num_sampled", "num_index_shards", "query_block_rows"):
            require(getattr(self, name) >= 1, f"neighbours.{name}", getattr(self, name), "use 1 or more")
        require(0 <= self.min_recall <= 1, "neighbours.min_recall", self.min_recall, "use 0 to 1")
