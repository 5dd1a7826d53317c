"""The table `rejects`, written piece by piece, so that many rejected rows take no more memory than few."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sracl_dist.columns import VALUE
from sracl_dist.data.encode import REJECTED, ROWS, split_name
from sracl_dist.data.file_splits import FileSplit, places_of_rows, sources_of
from sracl_dist.data.groups import open_groups
from sracl_dist.data.ordering import REPEATED, partition_name
from sracl_dist.data.rejects import DUPLICATE, SCHEMA
from sracl_dist.run_folder import StageFolder

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
            with open_groups(folder, name, SCHEMA.names) as reader:
                for group in range(len(reader)):
                    columns = [reader.arrow(group, column) for column in SCHEMA.names]
                    yield pa.Table.from_arrays(columns, schema=SCHEMA)


def all_repeats(folder: StageFolder, splits: Sequence[FileSplit], num_partitions: int) -> Iterator[pa.Table]:
    """Rows that ordering rejected."""
    there = set(folder.files(REPEATED))
    for partition in range(num_partitions):
        name = partition_name(REPEATED, partition)
        if name in there:
            with open_groups(folder, name, [ROWS, VALUE]) as reader:
                yield repeats(splits, reader.numpy(0, ROWS), reader.arrow(0, VALUE))


def repeats(splits: Sequence[FileSplit], row_ids: NDArray[np.int64], values: pa.Array) -> pa.Table:
    """Duplicates, by row, and the item of each."""
    pieces, rows = places_of_rows(row_ids)
    sources = pa.array(sources_of(splits), pa.string()).take(pa.array(pieces))
    reasons = pa.repeat(pa.scalar(DUPLICATE), len(rows))
    return pa.Table.from_arrays([sources, pa.array(rows), reasons, values], schema=SCHEMA)
