"""Where the log and the item texts are, and how they are cleaned and split."""

import codecs
from dataclasses import dataclass, field
from typing import Literal

from sracl_dist.config.sections.fields import neutral, require

MAX_KIND_CHARS = 100


@dataclass(kw_only=True)
class LogColumns:
    """Names of the columns in the interaction files."""

    user_id: str = "user_id"
    """Column with the user's id."""
    item_id: str = "item_id"
    """Column with the item's id."""
    time: str | None = "timestamp"
    """Column with the time (a number, or an ISO date-time) or the position within the user; null keeps file order."""
    rating: str | None = None
    """Column with a rating; needed only for data.min_rating."""
    event: str | None = None
    """Column with the kind of event; needed only for data.events."""


@dataclass(kw_only=True)
class ItemColumns:
    """Names of the columns in the item text files."""

    item_id: str = "item_id"
    """Column with the item's id."""
    title: str | None = "title"
    """Column with the title; null where there is none."""
    brand: str | None = "brand"
    """Column with the brand or maker; null where there is none."""
    categories: str | None = "categories"
    """Column with the categories, a list or a string split at data.category_separator; null where there is none."""
    description: str | None = "description"
    """Column with a longer description; null where there is none."""


@dataclass(kw_only=True)
class FileFormat:
    """How text files are written; Parquet files say it themselves."""

    separator: str | None = None
    """Of delimited text, one or more characters, such as ';', '::' or "\\t"; null finds the one of the header line."""
    header: list[str] | None = None
    """Names of the columns, in order, of files without a header line; null takes them from the first line."""
    encoding: str | None = None
    """utf-8, utf-16, latin-1 or another one that Python knows; null finds it."""


def check_format(key: str, layout: FileFormat) -> None:
    """Raise ValueError for an impossible value; `key` is that of the section."""
    separator, header, encoding = layout.separator, layout.header, layout.encoding
    is_separator = separator is None or (bool(separator) and not set(separator) & set('"\r\n'))
    require(is_separator, f"{key}.separator", separator, "use one or more characters, but no quote or line break")
    is_header = header is None or 0 < len(header) == len(set(header))
    require(is_header, f"{key}.header", header, "give every column a name of its own, or null")
    require(_is_encoding(encoding), f"{key}.encoding", encoding, "use utf-8, latin-1 or another of Python's")


def _is_encoding(name: str | None) -> bool:
    try:
        return name is None or bool(codecs.getincrementaldecoder(name) and "a".encode(name))
    except (LookupError, ValueError):
        return False


@dataclass(kw_only=True)
class DataConfig:
    """prepare: from a raw log and item texts to sequences, items and id maps."""

    source: str = "files"
    """`files`, or a public set such as movielens-1m or amazon-2023:<category>; data-format.md has the list."""
    path: str | None = None
    """Folder with a local copy of the public set; null looks in $SRACL_DATA, then the cache, then fetches it."""
    interactions: list[str] = field(default_factory=list)
    """Files or patterns with the log (source `files`): delimited text, JSON, Parquet; here or in s3:// and gs://."""
    item_texts: list[str] = field(default_factory=list)
    """Files or patterns with one row per item (source `files`), as above; empty where there are none."""
    columns: LogColumns = field(default_factory=LogColumns)
    """Column names in `interactions`."""
    item_columns: ItemColumns = field(default_factory=ItemColumns)
    """Column names in `item_texts`."""
    format: FileFormat = field(default_factory=FileFormat)
    """How text files of `interactions` are written."""
    item_format: FileFormat = field(default_factory=FileFormat)
    """How text files of `item_texts` are written."""
    category_separator: str = "|"
    """What separates categories within one string."""
    item_kind: str | None = None
    """What the items are, such as films or beauty products, for the prompts and their worked examples; null takes what
    is known of the public set, else "items"."""
    events: list[str] = field(default_factory=list)
    """Kinds of event that count, such as [cart, purchase]; rows of others are left out and counted. Empty: all."""
    min_rating: float | None = None
    """Rows with a lower rating are left out and counted; null takes every row as an interaction."""
    min_user_interactions: int = 5
    """k-core: users with fewer interactions are removed, repeatedly, together with the next field."""
    min_item_interactions: int = 5
    """k-core: items with fewer interactions are removed, repeatedly."""
    max_user_interactions: int | None = None
    """Only the latest so many events of a user are taken, before anything is counted; null takes all."""
    split: Literal["leave_last_out", "global_time"] = "leave_last_out"
    """leave_last_out: last item is test, the one before validation; global_time: two points in time for everybody."""
    validation_share: float = 0.1
    """global_time: share of all events that lie in the validation period."""
    test_share: float = 0.1
    """global_time: share of all events that lie in the test period, the latest one."""
    max_text_chars: int = 2000
    """Item texts are cut to this many characters per field, after HTML tags and line breaks are removed."""
    max_reject_share: float = 0.2
    """The stage fails when a larger share of the log's rows is unusable, naming the commonest reason."""
    shard_rows: int = neutral(2_000_000)
    """Events that one task works on at a time; about 150 bytes of a worker's memory each."""
    local_rows: int = neutral(20_000_000)
    """A log of up to so many rows is prepared by the job's own process, a larger one by Ray's workers."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("min_user_interactions", "min_item_interactions", "max_text_chars", "shard_rows"):
            require(getattr(self, name) >= 1, f"data.{name}", getattr(self, name), "use 1 or more")
        limit = self.max_user_interactions
        require(limit is None or limit >= 1, "data.max_user_interactions", limit, "use 1 or more, or null")
        require(self.local_rows >= 0, "data.local_rows", self.local_rows, "use 0 or more")
        for name in ("validation_share", "test_share"):
            value = getattr(self, name)
            require(0 < value < 0.5, f"data.{name}", value, "use a share above 0 and below 0.5")
        require(0 <= self.max_reject_share <= 1, "data.max_reject_share", self.max_reject_share, "use 0 to 1")
        check_format("data.format", self.format)
        check_format("data.item_format", self.item_format)
        kind = self.item_kind
        is_kind = kind is None or (bool(kind.strip()) and len(kind) <= MAX_KIND_CHARS and kind.isprintable())
        require(is_kind, "data.item_kind", kind, f"use a few words, up to {MAX_KIND_CHARS} characters, or null")
        separator = self.category_separator
        require(bool(separator), "data.category_separator", separator, "quote it in YAML, for example '|'")
        files = self.source == "files"
        require(not files or bool(self.interactions), "data.interactions", self.interactions, "name the log's files")
        require(files or not self.interactions, "data.interactions", self.interactions, "set data.source=files")
        rating = self.min_rating is None or not files or self.columns.rating is not None
        require(rating, "data.min_rating", self.min_rating, "name the rating column in data.columns.rating")
        event = not self.events or not files or self.columns.event is not None
        require(event, "data.events", self.events, "name the column with the kind of event in data.columns.event")
