"""First step over the log: read its files, keep the usable rows, and deal them to partitions of users.

work/read/<split>.arrow        block after block of rows, a batch per partition: user_id, item_id, time, row
work/rejected/<split>.parquet  rows that cannot be used
work/read/<split>.json         what became of the rows; written last
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import pyarrow as pa

from sracl_dist.columns import ITEM_ID, ROW, TIME, USER_ID
from sracl_dist.data.files import FileSplit, Piece
from sracl_dist.data.interactions import UsableRows, Wanted, usable_rows
from sracl_dist.data.known_ids import KNOWN, load_known_ids
from sracl_dist.data.readers import read_rows
from sracl_dist.data.rejects import Rejects, Tally
from sracl_dist.data.rows import Reading
from sracl_dist.data.sources import Source
from sracl_dist.data.times import NAME_OF_UNIT, TimeParser, common_decimals, rescaled, unit_of
from sracl_dist.errors import InputError
from sracl_dist.observe import Progress
from sracl_dist.run_folder import StageFolder

LONG_TEXT_BYTES = 100_000_000
"""A larger file of text has a progress line of its own, where its reader is in the job's process."""
READ, REJECTED = "work/read/", "work/rejected/"
_PARTITION = "partition"
_SCHEMA = pl.Schema({USER_ID: pl.String, ITEM_ID: pl.String, TIME: pl.Int64, ROW: pl.Int64})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the log is read, and how its users are dealt to partitions."""

    source: Source
    wanted: Wanted
    dates: bool | None
    """Whether times are dates; see TimeParser."""
    block_rows: int
    """Rows that are dealt at a time."""
    num_new: int
    """Partitions of users without a dense id, by the hash of their ids."""
    num_known: int
    """Partitions of users that have one from before, by this; they come first."""

    @property
    def num_partitions(self) -> int:
        """Of both kinds."""
        return self.num_known + self.num_new


@dataclass(kw_only=True)
class ReadSplit:
    """What is known of a split that was read."""

    tally: Tally = field(default_factory=Tally)
    block_decimals: list[int] = field(default_factory=list)
    """Of the times of each block."""
    block_largest: list[int] = field(default_factory=list)
    """The largest time of each block, with its decimals."""
    finest: int = 0
    """Most decimals that a time has."""
    typical: dict[str, float] = field(default_factory=dict)
    """By file, a time from its middle."""


def split_name(folder: str, split: FileSplit, ending: str = "arrow") -> str:
    """Name of a split's file below a folder of the stage."""
    return f"{folder}{split.index:06d}.{ending}"


def names_of_split(split: FileSplit) -> set[str]:
    """Files of a split that was read."""
    return {split_name(READ, split), split_name(REJECTED, split, "parquet"), split_name(READ, split, "json")}


def read_split(folder: StageFolder, split: FileSplit) -> ReadSplit:
    """What is known of a split that was read."""
    values = folder.read_json(split_name(READ, split, "json"))
    return ReadSplit(**values | {"tally": Tally.of(values["tally"])})


def make_reader(folder: StageFolder, layout: Layout) -> Callable[[FileSplit], None]:
    """What a task does: read a split and commit its usable rows by partition."""
    known = load_known_ids(folder, USER_ID)
    deal = _dealing(known, layout)

    def read(split: FileSplit) -> None:
        done, rejects = ReadSplit(), Rejects()
        batches = _batches(_usable(split, layout, rejects, done), deal, layout, done)
        with folder.open_output(split_name(READ, split)) as stream:
            first = next(batches)
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with pa.ipc.new_file(stream, first.schema, options=options) as writer:
                writer.write_batch(first)
                for batch in batches:
                    writer.write_batch(batch)
        folder.write_table(split_name(REJECTED, split, "parquet"), rejects.table())
        done.tally.num_read, done.tally.rejected = rejects.num_read, rejects.counts
        folder.write_json(split_name(READ, split, "json"), vars(done) | {"tally": vars(done.tally)})

    return read


def _usable(split: FileSplit, layout: Layout, rejects: Rejects, done: ReadSplit) -> Iterator[tuple[Piece, UsableRows]]:
    """The usable rows of a split, a batch at a time, and the piece that each batch is from."""
    parser = TimeParser(dates=layout.dates)
    for piece in split.pieces:
        reading = open_reading(piece, layout, rejects)
        # Text cannot be cut, so a long file would be silent for minutes.
        is_long = piece.row_groups is None and piece.num_bytes > LONG_TEXT_BYTES
        progress = Progress(f"prepare: reading {piece.file.source}", piece.num_bytes // 1000, "kB") if is_long else None
        for rows in read_rows(reading):
            usable = usable_rows(rows, parser, layout.wanted, piece.file.source, rejects)
            done.tally.num_kept += len(usable.frame)
            done.tally.num_other_events += usable.num_other_events
            done.tally.num_below_rating += usable.num_below_rating
            yield piece, usable
            if progress:
                progress.update(reading.num_bytes // 1000 - progress.done, rows=reading.num_rows)
        if progress:
            progress.close()


def open_reading(piece: Piece, layout: Layout, rejects: Rejects) -> Reading:
    """What a reader needs to read the piece."""
    return Reading(
        file=piece.file,
        format=layout.source.format,
        wanted=layout.wanted.columns(layout.source.columns),
        setting="data.columns.{}",
        format_setting="data.format",
        rejects=rejects,
        row_groups=piece.row_groups,
        first_row=piece.first_row,
    )


def _batches(
    usable: Iterator[tuple[Piece, UsableRows]],
    deal: Callable[[pl.DataFrame], list[pa.RecordBatch]],
    layout: Layout,
    done: ReadSplit,
) -> Iterator[pa.RecordBatch]:
    """Blocks of rows, each as a batch per partition; at least one block, which may be empty."""
    waiting: list[tuple[Piece, UsableRows]] = []
    num_rows = num_blocks = 0
    for piece, rows in usable:
        waiting.append((piece, rows))
        num_rows += len(rows.frame)
        if num_rows >= layout.block_rows:
            yield from deal(_block(waiting, done))
            waiting, num_rows, num_blocks = [], 0, num_blocks + 1
    if waiting or not num_blocks:
        yield from deal(_block(waiting, done))


def _block(parts: Sequence[tuple[Piece, UsableRows]], done: ReadSplit) -> pl.DataFrame:
    """The rows of some batches, their times at the same decimals, and known by piece and number."""
    frames = [_SCHEMA.to_frame(eager=True)]
    timed = [rows for _, rows in parts if TIME in rows.frame.columns and len(rows.frame)]
    decimals = common_decimals((rows.decimals, int(rows.frame[TIME].to_numpy().max())) for rows in timed)
    done.block_decimals.append(decimals)
    done.block_largest.append(0)
    done.finest = max(done.finest, *(rows.decimals for rows in timed), 0)
    for piece, rows in parts:
        frame = rows.frame.with_columns(pl.Series(ROW, piece.row_ids(rows.frame[ROW].to_numpy())))
        if TIME not in frame.columns:
            frame = frame.with_columns(pl.lit(0, pl.Int64).alias(TIME))
        elif len(frame):
            times = rescaled(frame[TIME].to_numpy(), rows.decimals, decimals)
            frame = frame.with_columns(pl.Series(TIME, times))
            done.block_largest[-1] = max(done.block_largest[-1], int(times.max()))
            done.typical.setdefault(piece.file.source, float(np.median(times)) / 10**decimals)
        frames.append(frame.select(_SCHEMA.names()))
    return pl.concat(frames)


def _dealing(known: pl.DataFrame, layout: Layout) -> Callable[[pl.DataFrame], list[pa.RecordBatch]]:
    """What deals a block's rows: a batch for each partition, in the order of the rows."""
    place = layout.num_known + (pl.col(USER_ID).hash() % layout.num_new).cast(pl.UInt32)

    def deal(rows: pl.DataFrame) -> list[pa.RecordBatch]:
        if layout.num_known:
            rows = rows.join(known, on=USER_ID, how="left", maintain_order="left")
            own = (pl.col(KNOWN).cast(pl.UInt64) * layout.num_known // len(known)).cast(pl.UInt32)
            rows = rows.with_columns(pl.coalesce(own, place).alias(_PARTITION))
        else:
            rows = rows.with_columns(place.alias(_PARTITION))
        counts = np.bincount(rows[_PARTITION].to_numpy(), minlength=layout.num_partitions)
        rows = rows.sort(_PARTITION, maintain_order=True).select(_SCHEMA.names())
        table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
        batch = table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], table.schema)
        starts = np.cumsum(counts) - counts
        return [batch.slice(start, num) for start, num in zip(starts.tolist(), counts.tolist(), strict=True)]

    return deal


def first_dates(splits: Sequence[FileSplit], layout: Layout) -> bool | None:
    """Whether the log's times are dates, as the first rows with a usable time say; None where none is usable."""
    parser, rejects = TimeParser(), Rejects()
    pieces = [piece for split in splits for piece in split.pieces]
    for piece in pieces if layout.source.columns.time is not None else ():
        for rows in read_rows(open_reading(piece, layout, rejects)):
            parser.parse(rows.columns[TIME])
            if parser.dates is not None:
                return parser.dates
    return None


def decimals_of(done: Sequence[ReadSplit]) -> int:
    """Decimals with which the tables hold the times of all splits.

    Raises:
        InputError: the largest times leave no room for the decimals of others.
    """
    blocks = [block for own in done for block in zip(own.block_decimals, own.block_largest, strict=True)]
    decimals, finest = common_decimals(blocks), max(own.finest for own in done)
    if decimals < finest:
        largest = max(value // 10**own for own, value in blocks)
        raise InputError(
            f"The log has times with {finest} decimals and a time as large as {largest}, which 64 bits cannot hold "
            f"together; fix the large times, or cut decimals."
        )
    return decimals


def require_one_unit(done: Sequence[ReadSplit]) -> None:
    """Refuse a log of numbers of which one file has times in seconds, say, and another one in milliseconds.

    Raises:
        InputError: names a file of each.
    """
    found: dict[str, tuple[str, float]] = {}
    for own in done:
        for source, typical in own.typical.items():
            if (unit := unit_of(typical)) is not None:
                found.setdefault(unit, (source, typical))
    if len(found) > 1:
        (one, (first, some)), (other, (second, more)) = list(found.items())[:2]
        raise InputError(
            f"The times of {first} look like {NAME_OF_UNIT[one]} (such as {some:.15g}) and those of {second} like "
            f"{NAME_OF_UNIT[other]} (such as {more:.15g}); bring all files to the same unit."
        )
