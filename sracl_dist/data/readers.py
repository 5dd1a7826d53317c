"""Reading of a file in whatever format it is: Parquet, batch by batch with only the wanted columns, or text."""

import math
import re
import uuid
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sracl_dist.columns import CATEGORIES, TIME, VECTOR
from sracl_dist.data.delimited import read_delimited
from sracl_dist.data.files import reading_errors
from sracl_dist.data.json_lines import read_json
from sracl_dist.data.lines import marked_utf8, text_blocks
from sracl_dist.data.rows import REQUIRED, Reading, Rows, float_texts, lists_of, without_nan
from sracl_dist.errors import InputError

_UUID_BYTES = 16
_BUFFER_BYTES = 8 << 20
"""Of a column that is read at a time; else its whole row group would be, which of vectors may be gigabytes."""
_JSON_NAME = re.compile(r"\.(json|jsonl|ndjson)(\.(gz|zst|bz2|xz|lz4))?$", re.IGNORECASE)
_JSON_ARRAY = re.compile(rb"\s*\[\s*(?:[{\]]|null\b)")
_JSON_OBJECT = re.compile(rb"\s*\{")
_types = pa.types
_LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
_TEXTS = ("string", "large_string", "binary", "large_binary", "fixed_size_binary")
"""What the names of types of texts and bytes begin with."""


def read_rows(reading: Reading) -> Iterator[Rows]:
    """Yield the rows of a file a batch at a time; rows that cannot even be parsed go to `reading.rejects`.

    Raises:
        InputError: the file is missing, damaged, of an unknown format, lacks a column, or has one of an unusable type.
    """
    for rows in _read_parquet(reading) if reading.file.is_parquet() else _read_text(reading):
        yield _with_categories(rows, reading.flags) if reading.flags else rows


def _with_categories(rows: Rows, flags: tuple[str, ...]) -> Rows:
    """The rows with a list of the flags that are 1 in place of these."""
    ones = np.column_stack([pc.equal(rows.columns[flag], "1").fill_null(False).to_numpy(False) for flag in flags])
    places, names = np.nonzero(ones)
    lists = lists_of(pa.array(flags, pa.string()).take(pa.array(names)), places, len(rows))
    columns = {name: values for name, values in rows.columns.items() if name not in flags}
    return Rows(columns=columns | {CATEGORIES: lists}, numbers=rows.numbers)


def _read_text(reading: Reading) -> Iterator[Rows]:
    blocks = text_blocks(reading)
    first = next(blocks, b"")
    is_free = reading.format.separator is None and reading.format.header is None
    is_json = _JSON_NAME.search(reading.file.path) is not None
    blocks = chain([first], blocks)
    if (is_json or is_free) and _JSON_ARRAY.match(first):
        return read_json(reading, blocks, is_array=True)
    if is_json or (is_free and _JSON_OBJECT.match(first)):
        return read_json(reading, blocks, is_array=False)
    return read_delimited(reading, blocks)


def _read_parquet(reading: Reading) -> Iterator[Rows]:
    file = reading.file
    in_pieces = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}
    with reading_errors(file), file.open() as stream, pq.ParquetFile(stream, **in_pieces) as parquet:
        for name in reading.columns:
            reading.place(name, parquet.schema_arrow.names)
        groups = range(parquet.num_row_groups) if reading.row_groups is None else reading.row_groups
        names = list(reading.columns.values())
        for batch in parquet.iter_batches(
            reading.batch_rows, row_groups=list(groups), columns=names, use_threads=False
        ):
            columns = {name: _plain(reading, name, own, batch.column(own)) for name, own in reading.columns.items()}
            first = reading.first_row + reading.num_rows + 1
            reading.count(batch.num_rows)
            reading.num_bytes = reading.file.size * reading.num_rows // max(parquet.metadata.num_rows, 1)
            yield Rows(columns=columns, numbers=np.arange(first, first + batch.num_rows, dtype=np.int64))


def _plain(reading: Reading, name: str, column: str, values: pa.Array) -> pa.Array:
    """Strings, or for a time also numbers, dates and timestamps, or for categories or a vector also lists."""
    kind = values.type
    if name == VECTOR and isinstance(kind, _LISTS):
        return _vectors(reading, column, values)
    if name not in REQUIRED and isinstance(kind, _LISTS):
        lists = _flat_lists(reading, column, values)
        return lists if name == CATEGORIES else pc.binary_join(lists, " ")
    if name == TIME:
        if _types.is_date(kind) or _types.is_timestamp(kind) or _types.is_signed_integer(kind):
            return values
        if _types.is_time(kind) or _types.is_duration(kind):
            return values.view(pa.int32() if _types.is_time32(kind) else pa.int64())
        if _types.is_floating(kind):
            numbers = values.cast(pa.float64())
            return pc.if_else(pc.is_finite(numbers), numbers, None)
    return _texts(reading, column, values)


def _vectors(reading: Reading, column: str, values: pa.Array) -> pa.Array:
    """Lists of numbers as large_list<float>; a missing number is NaN."""
    kind = values.type.value_type
    if not (_types.is_floating(kind) or _types.is_integer(kind) or _types.is_decimal(kind)):
        raise InputError(f"{reading.file} has the column {column!r} of type {values.type}; write lists of numbers.")
    lists = values.cast(pa.large_list(kind))
    numbers = lists.values.slice(lists.offsets[0].as_py(), lists.offsets[-1].as_py() - lists.offsets[0].as_py())
    return pa.LargeListArray.from_arrays(
        pc.subtract(lists.offsets, lists.offsets[0]),
        numbers.cast(pa.float32(), safe=False).fill_null(math.nan),
        mask=lists.is_null(),
    )


def _texts(reading: Reading, column: str, values: pa.Array) -> pa.Array:
    """Any scalar column as strings; bytes that are not UTF-8 are marked."""
    kind = values.type
    if isinstance(kind, pa.BaseExtensionType):
        return _texts(reading, column, values.storage)
    if _types.is_dictionary(kind):
        return _texts(reading, column, values.dictionary_decode())
    if _types.is_floating(kind):
        return float_texts(values)
    if _types.is_decimal(kind):
        plain = pa.array([None if value is None else f"{value:f}" for value in values.to_pylist()], pa.string())
        return pc.replace_substring_regex(plain, r"\.0+$|(\.\d*[1-9])0+$", r"\1")
    if _types.is_fixed_size_binary(kind) and kind.byte_width == _UUID_BYTES:
        return pa.array([value and str(uuid.UUID(bytes=value)) for value in values.to_pylist()], pa.string())
    if str(kind).startswith(_TEXTS):
        return without_nan(_decoded(values.cast(pa.binary())))
    if _types.is_duration(kind):
        return values.view(pa.int64()).cast(pa.string())
    if _types.is_temporal(kind):
        return pc.replace_substring(values.cast(pa.string()), " ", "T", max_replacements=1)
    if _types.is_integer(kind) or _types.is_null(kind):
        return values.cast(pa.string())
    raise InputError(f"{reading.file} has the column {column!r} of type {kind}; write it as text or numbers.")


def _decoded(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([value and marked_utf8(value).decode() for value in values.to_pylist()], pa.string())


def _flat_lists(reading: Reading, column: str, values: pa.Array) -> pa.Array:
    """list<string> out of lists nested to any depth, without nulls."""
    num_rows, places = len(values), np.arange(len(values))
    while isinstance(values.type, _LISTS):
        if not _types.is_fixed_size_list(values.type):  # Arrow finds no parents in views
            values = values.cast(pa.large_list(values.type.value_type))
        places = places[pc.list_parent_indices(values)]
        values = pc.list_flatten(values)
    return lists_of(_texts(reading, column, values), places, num_rows)
