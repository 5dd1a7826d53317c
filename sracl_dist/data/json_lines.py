"""JSON lines, one array of JSON objects, and lines of Python literals as in the Amazon 2014 item files."""

import ast
import codecs
import functools
import json
import math
import re
import warnings
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from sracl_dist.columns import CATEGORIES, ITEM_ID, TIME, VECTOR
from sracl_dist.data.lines import MARK, MAX_LINE_BYTES, TOO_LONG, whole_lines
from sracl_dist.data.rejects import LINE_TOO_LONG, NOT_JSON
from sracl_dist.data.rows import NOT_A_NUMBER, REQUIRED, Reading, Rows, float_texts
from sracl_dist.errors import InputError

_TOO_LONG = TOO_LONG.decode()
_BETWEEN = re.compile(r"[\s,\[\]]*")
_BETWEEN_CHARS = 100
"""What may lie between two objects, so that it is found where one of them is damaged."""
_NEXT_OBJECT = re.compile(r"\}\s*,\s*(?=\{)")


class _Decimal(str):
    """A number with a fraction or an exponent, as it is written."""


_DECODER = json.JSONDecoder(parse_float=_Decimal, parse_constant=lambda _: None)  # NaN and Infinity are no values
_Found = tuple[Any, int, str] | None
"""A value, None where it is damaged, with its number and text; None alone at the end of a block."""


def read_json(reading: Reading, blocks: Iterator[bytes], *, is_array: bool) -> Iterator[Rows]:
    """Yield one row per object, of a line or of the one array that the file is, and reject what is no object.

    Blank lines are no rows. Memory stays at a few blocks.

    Raises:
        InputError: the file is missing or damaged, or a column is in no row.
    """
    seen: dict[str, None] = {}
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    for found in _array_values(reading, blocks) if is_array else _line_values(blocks):
        if found is None:
            columns = {name: _column(reading, name, column, records) for name, column in reading.columns.items()}
            yield Rows(columns=columns, numbers=np.asarray(numbers, dtype=np.int64))
            records, numbers = [], []
            continue
        value, number, text = found
        reading.count(1)
        if isinstance(value, dict) and len(text) <= MAX_LINE_BYTES:
            records.append(value)
            numbers.append(number)
            if not value.keys() <= seen.keys():
                seen.update(dict.fromkeys(value))
        else:
            is_long = text.startswith(_TOO_LONG) or len(text) > MAX_LINE_BYTES
            reason = LINE_TOO_LONG if is_long else NOT_JSON
            reading.rejects.add_line(reading.file.source, number, reason, text.removeprefix(_TOO_LONG))
    _require(reading, seen, list(reading.columns))


def _require(reading: Reading, seen: dict[str, None], names: list[str]) -> None:
    """Make sure that each of these columns was in some row, if there were rows."""
    for name in names if seen else ():
        reading.place(name, list(seen))


def _line_values(blocks: Iterator[bytes]) -> Iterator[_Found]:
    """Values of the lines that are not blank; their numbers count those that are, too."""
    num_lines = 0
    for chunk in whole_lines(blocks):
        for line in chunk.decode().split("\n")[:-1]:
            num_lines += 1
            if line and not line.isspace():
                yield _parse(line), num_lines, line
        yield None


def _parse(line: str) -> Any:
    """The value of a line of JSON, or the dict that a Python literal is; else None."""
    try:
        return _DECODER.decode(line)
    except (ValueError, RecursionError):
        if not line.lstrip().startswith("{"):
            return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape within somebody's text
            value = ast.literal_eval(line.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) and all(isinstance(name, str) for name in value) else None


def _array_values(reading: Reading, blocks: Iterator[bytes]) -> Iterator[_Found]:
    """Values of an array; a damaged one ends where the next begins, on a line of its own if all so far had one.

    Raises:
        InputError: the array has no end.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(MARK)
    text, at, num_values, is_lost, is_closed, next_object = "", 0, 0, False, False, _NEXT_OBJECT
    for block in chain(blocks, [b""]):
        text, at = text[at:] + decoder.decode(block, final=not block), 0
        while True:
            start = next_object.search(text, at) if is_lost else _BETWEEN.match(text, at)
            is_closed = is_closed or is_lost or (start is not None and "]" in start[0])
            at, is_lost = start.end() if start else max(at, len(text) - _BETWEEN_CHARS), start is None
            if not start or at == len(text):
                break
            head, newline, indent = text[max(at - _BETWEEN_CHARS, 0) : at].rpartition("\n")
            if newline and not indent.strip() and not num_values:
                next_object = re.compile(f"\n{indent}(?={{)")
            elif (head or indent) and (not newline or indent.strip()):
                next_object = _NEXT_OBJECT
            try:
                value, stop = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError):
                if block and len(text) - at <= MAX_LINE_BYTES:  # it may go on in the next block
                    break
                end = next_object.search(text, at)
                value, stop, is_lost = None, end.start() + 1 if end else len(text), end is None
            num_values, is_closed = num_values + 1, False
            yield value, num_values, text[at:stop][: MAX_LINE_BYTES + 1]
            at = max(at + 1, stop - _BETWEEN_CHARS) if is_lost else stop
        yield None
    if not is_closed:
        raise InputError(f"{reading.file} is a JSON array without its end; copy or download it again.")


def _column(reading: Reading, name: str, column: str, records: list[dict[str, Any]]) -> pa.Array:
    values = [record.get(column) for record in records]
    if name == CATEGORIES:
        return pa.array([_flat(value, reading.separator) for value in values], pa.list_(pa.string()))
    if name == VECTOR:
        return pa.array([_vector(value) for value in values], pa.large_list(pa.float32()))
    return pa.array([_text(value, name) for value in values], pa.string())


def _vector(value: Any) -> list[float] | None:
    """A list of numbers, NaN where one is missing or is none; anything else is no vector."""
    if not isinstance(value, list | tuple):
        return None
    return [_number(part) for part in value]


def _number(value: Any) -> float:
    try:
        return float(value) if type(value) in (int, float, _Decimal) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _text(value: Any, name: str) -> str | None:
    """A scalar as text, a list of them joined where the column may hold one; anything else is no value."""
    if type(value) is str:
        # JSON can spell half a surrogate pair, which no UTF-8 text can hold.
        text = value if value.isascii() else value.encode(errors=MARK).decode()
        return text if text not in NOT_A_NUMBER else None
    if isinstance(value, _Decimal | float):
        return str(value) if name == TIME else _float_text(float(value))
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # thousands of digits
            return None
    if name not in REQUIRED and isinstance(value, list | tuple):
        return " ".join(filter(None, (_text(part, ITEM_ID) for part in value))) or None
    return None


@functools.lru_cache(maxsize=1 << 16)
def _float_text(value: float) -> str | None:
    """As in a column of Parquet."""
    text: str | None = float_texts(pa.array([value], pa.float64()))[0].as_py()
    return text


def _flat(value: Any, separator: str) -> list[str] | None:
    """Categories as a flat list: a text is split, nested lists are joined, in order."""
    if isinstance(value, str):
        text = _text(value, CATEGORIES)
        return None if text is None else text.split(separator)
    if not isinstance(value, list | tuple):
        return None
    flat: list[str] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | tuple):
            waiting.extend(reversed(part))
        elif (text := _text(part, ITEM_ID)) is not None:
            flat.append(text)
    return flat
