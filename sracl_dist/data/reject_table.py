"""The table `rejects`, written piece by piece, so that many rejected rows take no more memory than few."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sracl_dist.artifacts import StageFolder
from sracl_dist.columns import REASON, ROW, VALUE
from sracl_dist.data.encode import REJECTED, split_name
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.groups import open_groups
from sracl_dist.data.numbering import Numbering
from sracl_dist.data.ordering import REPEATED, SPLIT, partition_name
from sracl_dist.data.rejects import DUPLICATE, SCHEMA, Rejects

REJECTS_TABLE = "rejects.parquet"


def write_rejects(folder: StageFolder, splits: Sequence[FileSplit], numbering: Numbering, texts: Rejects) -> int:
    """Write the rejected rows of the log, then the repeated ones, then those of item texts; returns how many.

    Raises:
        StorageError: the run folder cannot be written.
    """
    num_rows = 0
    with folder.open_output(REJECTS_TABLE) as stream, pq.ParquetWriter(stream, SCHEMA, compression="zstd") as writer:
        for table in _tables(folder, splits, numbering, texts):
            writer.write_table(table)
            num_rows += table.num_rows
    return num_rows


def _tables(
    folder: StageFolder, splits: Sequence[FileSplit], numbering: Numbering, texts: Rejects
) -> Iterator[pa.Table]:
    there = set(folder.files(REJECTED)) | set(folder.files(REPEATED))
    for split in splits:
        name = split_name(REJECTED, split)
        if name in there:
            with open_groups(folder, name, [ROW, REASON, VALUE]) as reader:
                for group in range(len(reader)):
                    rows, reasons, values = (reader.arrow(group, column) for column in (ROW, REASON, VALUE))
                    yield _table(pa.repeat(pa.scalar(split.source), len(rows)), rows, reasons, values)
    sources = pa.array([split.source for split in splits])
    for partition in range(numbering.num_partitions):
        name = partition_name(REPEATED, partition)
        if name in there:
            with open_groups(folder, name, [SPLIT, ROW, VALUE]) as reader:
                own_splits, rows, values = (reader.arrow(0, column) for column in (SPLIT, ROW, VALUE))
                yield _table(sources.take(own_splits), rows, pa.repeat(pa.scalar(DUPLICATE), len(rows)), values)
    yield texts.table()


def _table(sources: pa.Array, rows: pa.Array, reasons: pa.Array, values: pa.Array) -> pa.Table:
    return pa.Table.from_arrays([sources, rows, reasons, values], schema=SCHEMA)
