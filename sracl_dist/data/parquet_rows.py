"""Parquet files, read batch by batch with only the wanted columns."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sracl_dist.columns import CATEGORIES, TIME
from sracl_dist.data.lines import marked_utf8
from sracl_dist.data.rows import Reading, Rows, reading_errors
from sracl_dist.errors import InputError

BATCH_ROWS = 1 << 17


def read_parquet(reading: Reading) -> Iterator[Rows]:
    """Yield the rows of a Parquet file.

    Raises:
        InputError: the file is missing or damaged, lacks a column, or a column has an unusable type.
    """
    with reading_errors(reading.path), pq.ParquetFile(reading.path) as file:
        reading.seen_columns = dict.fromkeys(file.schema_arrow.names)
        for name, column in reading.wanted.items():
            if column not in reading.seen_columns:
                raise reading.missing(name)
        size, num_rows = reading.path.stat().st_size, max(file.metadata.num_rows, 1)
        groups = range(file.num_row_groups) if reading.row_groups is None else reading.row_groups
        for batch in file.iter_batches(
            BATCH_ROWS, row_groups=list(groups), columns=list(reading.wanted.values()), use_threads=False
        ):
            columns = {
                name: _plain(reading.path, name, column, batch.column(column))
                for name, column in reading.wanted.items()
            }
            first = reading.first_row + reading.num_rows + 1
            numbers = np.arange(first, first + batch.num_rows, dtype=np.int64)
            reading.count(batch.num_rows)
            reading.num_bytes = size * reading.num_rows // num_rows
            yield Rows(columns=columns, numbers=numbers)


def _plain(path: Path, name: str, column: str, values: pa.Array) -> pa.Array:
    """Strings, or for a time also integers and timestamps, or for categories also a list of strings."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.dictionary_decode()
        kind = values.type
    if name == TIME and (pa.types.is_temporal(kind) or pa.types.is_signed_integer(kind)):
        return values
    if name == CATEGORIES and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return _flat_lists(path, column, values)
    if pa.types.is_floating(kind):
        return _float_texts(values)
    return _texts(path, column, values)


def _texts(path: Path, column: str, values: pa.Array) -> pa.Array:
    """Any scalar column as strings; bytes that are not UTF-8 are marked."""
    kind = values.type
    if not (pa.types.is_integer(kind) or _is_text(kind) or pa.types.is_null(kind)):
        raise InputError(f"{path} has the column {column!r} of type {kind}; write it as text or numbers.")
    if not _is_text(kind):
        return values.cast(pa.string())
    try:
        return values.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        texts = [
            None if value is None else marked_utf8(value).decode() for value in values.cast(pa.binary()).to_pylist()
        ]
        return pa.array(texts, pa.string())


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return any(
        test(kind)
        for test in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
        )
    )


def _float_texts(values: pa.Array) -> pa.Array:
    """Numbers as text; whole numbers without a fraction, because an integer column with gaps is stored as floats."""
    numbers = values.cast(pa.float64())
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), 2.0**53))
    integers = pc.if_else(whole, numbers, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(integers, numbers.cast(pa.string()))


def _flat_lists(path: Path, column: str, values: pa.Array) -> pa.Array:
    """list<string> out of lists nested to any depth."""
    while pa.types.is_list(values.type.value_type) or pa.types.is_large_list(values.type.value_type):
        parents = pc.list_parent_indices(values)
        inner = pc.list_flatten(values)
        grandparents = parents.take(pc.list_parent_indices(inner))
        flat = pc.list_flatten(inner)
        counts = np.bincount(grandparents.to_numpy(), minlength=len(values))
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        values = pa.ListArray.from_arrays(offsets, flat)
    texts = _texts(path, column, pc.list_flatten(values))
    counts = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32()), texts)
