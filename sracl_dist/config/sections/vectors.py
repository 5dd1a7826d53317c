"""From texts to vectors, and from vectors to neighbours."""

from dataclasses import dataclass, field
from typing import Literal

from sracl_dist.config.sections.data import FileFormat, check_format
from sracl_dist.config.sections.fields import neutral, require

MIN_METER_ROWS, MAX_METER_ROWS = 20, 10_000
"""Below, nothing is told from chance; above, the comparison of all pairs takes minutes."""


@dataclass(kw_only=True)
class EmbedConfig:
    """embed: a text encoder turns profiles and raw texts into unit vectors."""

    model: str = "package:all-minilm-l6-v2"
    """Hugging Face id, local folder, or `package:` and a name of docs/models.md."""
    text: Literal["raw_and_profile", "profile", "raw", "auto"] = "raw_and_profile"
    """What is encoded: the item's or history's own text, the profile, or both; without a profile, the raw text. auto:
    for items and for users that of the three whose nearest have most in common in training, raw text where no other is
    clearly better."""
    meter_rows: int = neutral(500)
    """So many items and users are encoded in each of these ways and measured before the rest, for `auto` and for the
    report; 0 measures nothing. A change encodes everything again with `auto` only; otherwise a finished stage keeps
    what it measured."""
    items_per_user: int = 20
    """How many of the latest training items stand for a user in the raw text."""
    max_tokens: int = 256
    """Tokens of a text that the encoder reads; what follows is cut. At most what the model has positions for."""
    prompt: str | None = None
    """Text that is put before every text, such as "query: " for the E5 family; null: the model's own default prompt;
    an empty text: none."""
    dimensions: int | None = None
    """Length of the vectors, for models whose first numbers are meant to be used alone (Matryoshka); null: all."""
    precision: Literal["float32", "float16"] = "float32"
    """Number format of the vectors on disk; float16 takes half the room and changes a cosine in the fourth digit."""
    shard_rows: int = neutral(4096)
    """Rows that are committed together."""
    batch_rows: int = neutral(64)
    """Texts encoded at a time."""
    num_workers: int = neutral(1)
    """Encoders that run side by side, one GPU each where the cluster has GPUs."""
    items: list[str] = field(default_factory=list)
    """Files or patterns with finished vectors of all items, which are taken instead of encoding: delimited text, JSON,
    Parquet; here or in s3:// and gs://. Empty: items are encoded."""
    users: list[str] = field(default_factory=list)
    """Files or patterns with finished vectors of all users, which may have another width; empty: users are encoded."""
    item_id_column: str = "item_id"
    """Column with the item's id in `items`."""
    user_id_column: str = "user_id"
    """Column with the user's id in `users`."""
    vector_column: str = "vector"
    """Column with the vector in both: a list of numbers, in delimited text within one field."""
    format: FileFormat = field(default_factory=FileFormat)
    """How text files of `items` and `users` are written."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("items_per_user", "shard_rows", "batch_rows", "num_workers"):
            require(getattr(self, name) >= 1, f"embed.{name}", getattr(self, name), "use 1 or more")
        require(self.max_tokens >= 8, "embed.max_tokens", self.max_tokens, "use 8 or more")
        check_format("embed.format", self.format)
        wide = self.dimensions is None or self.dimensions >= 1
        require(wide, "embed.dimensions", self.dimensions, "use 1 or more, or null")
        rows = self.meter_rows
        enough = f"use {MIN_METER_ROWS} to {MAX_METER_ROWS}, or 0 to measure nothing"
        require(rows == 0 or MIN_METER_ROWS <= rows <= MAX_METER_ROWS, "embed.meter_rows", rows, enough)
        measures = rows > 0 or self.text != "auto"
        require(measures, "embed.meter_rows", rows, f"use {MIN_METER_ROWS} or more with embed.text=auto")


@dataclass(kw_only=True)
class NeighboursConfig:
    """neighbours: for every item and every user the nearest others by cosine."""

    num_neighbours: int = 10
    """Length of every neighbour list (k)."""
    index: Literal["auto", "exact", "ivf", "ivf_sq8", "ivf_pq"] = "auto"
    """exact; or lists of near vectors of which a query visits a few (ivf), with one byte a number (ivf_sq8) or with
    compressed vectors in memory and the whole ones on disk (ivf_pq); auto: the first of these that takes neither too
    long nor more than budget_bytes."""
    budget_bytes: int = 8_000_000_000
    """Memory that a worker with one part of the table may use; what cannot fit is refused before it starts."""
    num_lists: int | None = None
    """ivf: how many lists; null: about four times the square root of the number of vectors."""
    num_probes: int | None = None
    """ivf: how many lists a query visits; null: as few as reach min_recall on a sample."""
    num_sampled: int = 1000
    """Rows whose neighbours are searched again, among all vectors and without an index, to measure recall."""
    min_recall: float = 0.99
    """The stage fails when the measured recall@k is lower."""
    min_score: float | None = None
    """Others below this cosine are no neighbours; null takes all."""
    max_score: float | None = None
    """Others above this cosine are near-duplicates and no neighbours; null takes all."""
    items_share: Literal["nothing", "brand", "category"] = "nothing"
    """An item with a brand, or with a narrowest category, takes neighbours of the same one only."""
    mutual: bool = False
    """Keep a neighbour only where each is in the other's list."""
    max_changed_share: float = neutral(0.2)
    """Up to this share of new or changed vectors the lists of the others are kept and improved; above, or after a
    change of these settings, all are made anew."""
    num_index_shards: int = neutral(1)
    """Parts of the table held by separate workers."""
    query_block_rows: int = neutral(16_384)
    """Queries sent to every part at a time; each block is committed on its own."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_neighbours", "num_sampled", "num_index_shards", "query_block_rows", "budget_bytes"):
            require(getattr(self, name) >= 1, f"neighbours.{name}", getattr(self, name), "use 1 or more")
        for name in ("num_lists", "num_probes"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"neighbours.{name}", value, "use 1 or more, or null")
        for name in ("min_recall", "max_changed_share"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"neighbours.{name}", value, "use 0 to 1")
        lowest, highest = self.min_score, self.max_score
        ordered = lowest is None or highest is None or lowest < highest
        require(ordered, "neighbours.min_score", lowest, f"use less than neighbours.max_score={highest}, or null")
