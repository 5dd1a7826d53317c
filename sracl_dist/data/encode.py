"""First step over the log: read a piece, keep the usable rows, and number its users and items within a block of rows.

work/encoded/<split>.arrow     a group per block: codes of users and items, times, rows; and the distinct ids
work/rejected/<split>.arrow    a group per batch: source, row, reason, value
work/encoded/<split>.json      what became of the rows; written last
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import REASON, ROW, SOURCE, VALUE
from sracl_dist.config.sections import LogColumns
from sracl_dist.data.file_splits import FileSplit, Piece
from sracl_dist.data.groups import Group, write_groups
from sracl_dist.data.interactions import Tally, UsableRows, usable_rows, wanted_columns
from sracl_dist.data.readers import reader_of
from sracl_dist.data.rejects import Rejects
from sracl_dist.data.rows import Reading
from sracl_dist.data.strings import HashKey, distinct_strings
from sracl_dist.data.times import TimeParser
from sracl_dist.observe import Progress
from sracl_dist.run_folder import StageFolder

LONG_TEXT_BYTES = 100_000_000
"""A larger file of text has a progress line of its own, where its reader is in the job's process."""
ENCODED, REJECTED = "work/encoded/", "work/rejected/"
USERS, ITEMS, TIMES, ROWS = "users", "items", "times", "rows"
USER_IDS, USER_HASHES, USER_COUNTS = "user_ids", "user_hashes", "user_counts"
ITEM_IDS, ITEM_HASHES = "item_ids", "item_hashes"


@dataclass(frozen=True, kw_only=True)
class LogFormat:
    """How the log is read."""

    columns: LogColumns
    min_rating: float | None
    dates: bool | None
    """Whether times are dates; see TimeParser."""
    key: HashKey
    block_rows: int
    """Rows whose users and items are numbered together."""
    setting: str = "data.columns"
    """Configuration key of the column names, for messages."""


def split_name(folder: str, split: FileSplit, ending: str = "arrow") -> str:
    """Name of a split's file below a folder of the stage."""
    return f"{folder}{split.index:06d}.{ending}"


def is_done(folder: StageFolder, split: FileSplit) -> bool:
    """Whether the split was encoded before."""
    return folder.exists(split_name(ENCODED, split, "json"))


def tally_of(folder: StageFolder, split: FileSplit) -> Tally:
    """What became of the rows of an encoded split."""
    values = folder.read_json(split_name(ENCODED, split, "json"))
    return Tally(**values | {"rejected": Counter(values["rejected"])})


def read_split(split: FileSplit, layout: LogFormat, rejects: Rejects) -> Iterator[tuple[Piece, UsableRows]]:
    """The usable rows of a split, a batch at a time, and the piece that each batch is from.

    Raises:
        InputError: the file is missing or damaged, or lacks a column.
    """
    parser = TimeParser(dates=layout.dates)
    for piece in split.pieces:
        reading = open_reading(piece, layout, rejects)
        # Text cannot be cut, so a long file would be silent for minutes.
        is_long = piece.row_groups is None and piece.num_bytes > LONG_TEXT_BYTES
        progress = Progress(f"prepare: reading {piece.source}", piece.num_bytes // 1000, "kB") if is_long else None
        for rows in reader_of(piece.path)(reading):
            yield piece, usable_rows(rows, parser, layout.min_rating, piece.source, rejects)
            if progress:
                progress.update(reading.num_bytes // 1000 - progress.done, rows=reading.num_rows)
        if progress:
            progress.close()


def open_reading(piece: Piece, layout: LogFormat, rejects: Rejects) -> Reading:
    """What a reader needs to read the piece."""
    return Reading(
        path=piece.path,
        source=piece.source,
        wanted=wanted_columns(layout.columns, layout.min_rating),
        setting=layout.setting,
        rejects=rejects,
        row_groups=piece.row_groups,
        first_row=piece.first_row,
    )


def make_encoder(folder: StageFolder, layout: LogFormat) -> Callable[[FileSplit], Tally]:
    """What a task does: encode a split and commit it; returns what became of its rows."""

    def encode(split: FileSplit) -> Tally:
        rejects, tally = Rejects(), Tally()
        write_groups(folder, split_name(ENCODED, split), _blocks(split, layout, rejects, tally))
        _write_rejects(folder, split, rejects)
        tally.num_read, tally.rejected = rejects.num_read, rejects.counts
        folder.write_json(split_name(ENCODED, split, "json"), vars(tally))
        return tally

    return encode


def _write_rejects(folder: StageFolder, split: FileSplit, rejects: Rejects) -> None:
    table = rejects.table().select([SOURCE, ROW, REASON, VALUE])
    batches = [dict(zip(table.column_names, batch.columns, strict=True)) for batch in table.to_batches()]
    if batches:
        write_groups(folder, split_name(REJECTED, split), batches)


def _blocks(split: FileSplit, layout: LogFormat, rejects: Rejects, tally: Tally) -> Iterator[Group]:
    waiting = _Waiting()
    for piece, rows in read_split(split, layout, rejects):
        tally.num_below_rating += rows.num_below_rating
        tally.num_kept += len(rows.numbers)
        waiting.add(piece, rows)
        if waiting.num_rows >= layout.block_rows:
            yield waiting.block(layout.key)
            waiting = _Waiting()
    if waiting.num_rows:
        yield waiting.block(layout.key)


@dataclass
class _Waiting:
    """Rows that wait until there are enough for a block."""

    parts: list[UsableRows] = field(default_factory=list)
    row_ids: list[NDArray[np.int64]] = field(default_factory=list)
    num_rows: int = 0

    def add(self, piece: Piece, rows: UsableRows) -> None:
        """Add a batch."""
        if len(rows.numbers):
            self.parts.append(rows)
            self.row_ids.append(piece.row_ids(rows.numbers))
            self.num_rows += len(rows.numbers)

    def block(self, key: HashKey) -> Group:
        """All of them, encoded."""
        users = distinct_strings(_joined([part.user_ids for part in self.parts]), key)
        items = distinct_strings(_joined([part.item_ids for part in self.parts]), key)
        group: dict[str, NDArray | pa.Array] = {
            USERS: users.codes,
            ITEMS: items.codes,
            ROWS: np.concatenate(self.row_ids),
            USER_IDS: users.ids,
            USER_HASHES: users.hashes.ravel(),
            USER_COUNTS: np.bincount(users.codes).astype(np.int32),
            ITEM_IDS: items.ids,
            ITEM_HASHES: items.hashes.ravel(),
        }
        times = [part.times for part in self.parts if part.times is not None]
        if times:
            group[TIMES] = np.concatenate(times)
        return group


def _joined(parts: list[pa.LargeStringArray]) -> pa.LargeStringArray:
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
