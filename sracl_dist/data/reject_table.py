"""The table `rejects`, written piece by piece, so that many rejected rows take no more memory than few."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sracl_dist.artifacts import StageFolder
from sracl_dist.columns import REASON, ROW, VALUE
from sracl_dist.data.encode import REJECTED, split_name
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.groups import open_groups
from sracl_dist.data.ordering import REPEATED, SPLIT, partition_name
from sracl_dist.data.rejects import DUPLICATE, SCHEMA

REJECTS_TABLE = "rejects.parquet"


def write_rejects(folder: StageFolder, parts: Iterable[pa.Table]) -> int:
    """Write the table from its parts; returns its number of rows.

    Raises:
        StorageError: the run folder cannot be written.
    """
    num_rows = 0
    with folder.open_output(REJECTS_TABLE) as stream, pq.ParquetWriter(stream, SCHEMA, compression="zstd") as writer:
        for table in parts:
            writer.write_table(table)
            num_rows += table.num_rows
    return num_rows


def unusable(folder: StageFolder, splits: Sequence[FileSplit]) -> Iterator[pa.Table]:
    """Rows that encoding rejected."""
    there = set(folder.files(REJECTED))
    for split in splits:
        name = split_name(REJECTED, split)
        if name in there:
            with open_groups(folder, name, [ROW, REASON, VALUE]) as reader:
                for group in range(len(reader)):
                    rows, reasons, values = (reader.arrow(group, column) for column in (ROW, REASON, VALUE))
                    yield _table(pa.repeat(pa.scalar(split.source), len(rows)), rows, reasons, values)


def all_repeats(folder: StageFolder, splits: Sequence[FileSplit], num_partitions: int) -> Iterator[pa.Table]:
    """Rows that ordering rejected."""
    there = set(folder.files(REPEATED))
    for partition in range(num_partitions):
        name = partition_name(REPEATED, partition)
        if name in there:
            with open_groups(folder, name, [SPLIT, ROW, VALUE]) as reader:
                own_splits, rows, values = (reader.arrow(0, column) for column in (SPLIT, ROW, VALUE))
                yield repeats(splits, own_splits, rows, values)


def repeats(splits: Sequence[FileSplit], own_splits: pa.Array, rows: pa.Array, values: pa.Array) -> pa.Table:
    """Duplicates: split, row and item of each."""
    sources = pa.array([split.source for split in splits], pa.string()).take(own_splits)
    return _table(sources, rows, pa.repeat(pa.scalar(DUPLICATE), len(rows)), values)


def _table(sources: pa.Array, rows: pa.Array, reasons: pa.Array, values: pa.Array) -> pa.Table:
    return pa.Table.from_arrays([sources, rows, reasons, values], schema=SCHEMA)
