"""JSON lines, and the Python literals that the Amazon 2014 item files have in their place."""

import ast
import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from sracl_dist.columns import CATEGORIES, ITEM_ID, TIME, USER_ID
from sracl_dist.data.lines import TOO_LONG, marked_utf8, text_chunks
from sracl_dist.data.rejects import LINE_TOO_LONG, NOT_JSON
from sracl_dist.data.rows import Reading, Rows

_REQUIRED = (USER_ID, ITEM_ID, TIME)


def read_json_lines(reading: Reading) -> Iterator[Rows]:
    """Yield one row per line that holds an object and reject the others; blank lines are no rows.

    Raises:
        InputError: the file is missing or damaged, or a column is in no row.
    """
    num_lines = 0
    for chunk in text_chunks(reading):
        records, numbers = [], []
        for line in marked_utf8(chunk).splitlines():
            num_lines += 1
            if not line.strip():
                continue
            reading.count(1)
            record = _parse(line)
            if record is None:
                _reject(reading, num_lines, line)
                continue
            records.append(record)
            numbers.append(num_lines)
            if not record.keys() <= reading.seen_columns.keys():
                reading.seen_columns.update(dict.fromkeys(record))
        _require_columns(reading, [name for name in reading.wanted if name in _REQUIRED])
        yield _rows(reading, records, numbers)
    _require_columns(reading, list(reading.wanted))


def _require_columns(reading: Reading, names: list[str]) -> None:
    for name in names:
        if reading.seen_columns and reading.wanted[name] not in reading.seen_columns:
            raise reading.missing(name)


def _reject(reading: Reading, number: int, line: bytes) -> None:
    reason = LINE_TOO_LONG if line.startswith(TOO_LONG) else NOT_JSON
    text = line.removeprefix(TOO_LONG)[:400].decode("utf-8", errors="replace")
    reading.rejects.add_line(reading.source, number, reason, text)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object on the line, or None."""
    if line.startswith(TOO_LONG):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = _parse_literal(line)
    return value if isinstance(value, dict) else None


def _parse_literal(line: bytes) -> Any:
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape within somebody's text
            value = ast.literal_eval(line.decode().strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) and all(isinstance(name, str) for name in value) else None


def _rows(reading: Reading, records: list[dict[str, Any]], numbers: list[int]) -> Rows:
    columns = {}
    for name, column in reading.wanted.items():
        values = [record.get(column) for record in records]
        if name == CATEGORIES:
            lists = [_flat(value, reading.separator) for value in values]
            columns[name] = pa.array(lists, pa.list_(pa.string()))
        else:
            join = name not in _REQUIRED
            columns[name] = pa.array([_text(value, join=join) for value in values], pa.string())
    return Rows(columns=columns, numbers=np.asarray(numbers, dtype=np.int64))


def _text(value: Any, *, join: bool) -> str | None:
    """A scalar as text, a list of them joined where that makes sense; anything else is no value."""
    if isinstance(value, str):
        return _encodable(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number_text(value)
    if join and isinstance(value, list | tuple):
        return " ".join(text for text in (_text(part, join=False) for part in value) if text) or None
    return None


def _number_text(value: float) -> str | None:
    try:
        return str(value)
    except ValueError:  # an integer of thousands of digits
        return None


def _encodable(text: str) -> str:
    """JSON can spell half a surrogate pair, which no UTF-8 text can hold."""
    if text.isascii():
        return text
    return text.encode("utf-8", errors="surrogatepass").decode("utf-8", errors="sracl_mark")


def _flat(value: Any, separator: str) -> list[str] | None:
    """Categories as a flat list: a text is split, nested lists are joined, in order."""
    if isinstance(value, str):
        return _encodable(value).split(separator)
    if not isinstance(value, list | tuple):
        return None
    flat: list[str] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | tuple):
            waiting.extend(reversed(part))
        elif (text := _text(part, join=False)) is not None:
            flat.append(text)
    return flat
