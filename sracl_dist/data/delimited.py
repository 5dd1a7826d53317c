"""Delimited text such as CSV: blocks of lines go through Arrow's parser, and those with quotes through Python's.

Arrow takes what follows an open quote for one long field, and drops a quote within one.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from sracl_dist.columns import ITEM_ID, TEXT, TIME, USER_ID
from sracl_dist.data.files import reading_errors
from sracl_dist.data.lines import TOO_LONG, whole_lines
from sracl_dist.data.rejects import BROKEN_QUOTE, LINE_TOO_LONG, UNCLOSED_QUOTE, WRONG_FIELDS
from sracl_dist.data.rows import Reading, Rows, without_nan
from sracl_dist.errors import InputError

MAX_RECORD_BYTES = 1 << 20
"""A quoted field that is still open after so many bytes, and at the end of a block, is damaged."""
SEPARATORS = (",", ";", "\t", "|", "::")
_BY_ENDING = {"csv": ",", "tsv": "\t", "tab": "\t", "inter": "\t", "item": "\t"}
_STANDS_FOR_SEPARATOR = "\x1f"
"""Arrow takes one byte, so this one is put where a separator is longer."""
_TOO_LONG = TOO_LONG.decode()
_TIME = re.compile(r"\s*[+-]?[.\d][-+.:/\d\sTZUCGMeE]*")
"""Like a time, which no name of a column is."""
_QUOTED = r'^"((?:[^"]|"")*)"$'
_MAY_BE_TIME = re.compile(r"(?i)\s*(?:[+-]?[.\d].*|nan|nat|null|none|\\n)\s*")
"""Like a time, or what stands for a missing one, in a line that may be a row."""
csv.field_size_limit(16 << 20)  # more than a block and what is left of the one before


def read_delimited(reading: Reading, blocks: Iterator[bytes]) -> Iterator[Rows]:
    """Yield the rows with the right number of fields and reject the others; empty lines are no rows.

    Raises:
        InputError: the file is missing, damaged or empty, or lacks a column.
    """
    chunks = whole_lines(blocks)
    first = next(chunks, b"")
    line, _, rest = first.partition(b"\n")
    parser = _Parser(reading, *_header(reading, line.decode().strip("\r")))
    pending = b""
    for chunk in chain([first if reading.format.header else rest], chunks, [None]):
        rows, pending = parser.parse(pending + (chunk or b""), is_end=chunk is None)
        yield rows


def _header(reading: Reading, line: str) -> tuple[list[str], str]:
    """Names of the columns, and the separator."""
    given = reading.format.header
    if not given and not line.strip():
        raise InputError(f"{reading.file} is empty or has no header line; write the column names into its first line.")
    ending = re.search(r"\.(\w+?)(\.(gz|zst|bz2|xz|lz4))?$", reading.file.path.lower())
    kind = ending[1] if ending else ""
    set_separator = reading.format.separator
    candidates = [_BY_ENDING.get(kind, ","), *SEPARATORS] if set_separator is None else [set_separator]
    by_separator = {separator: _fields(line, separator) for separator in candidates}
    if given:
        return list(given), max(candidates, key=lambda separator: len(by_separator[separator]) == len(given))
    wanted = set(reading.columns.values())
    for fields in by_separator.values():
        fields[:] = map(str.strip, fields)
        if kind in ("inter", "item"):  # RecBole's files have a type behind a column's name
            fields[:] = [field if field in wanted else field.split(":", 1)[0] for field in fields]
    separator, names = max(by_separator.items(), key=lambda own: (wanted <= set(own[1]), len(own[1])))
    return names, separator


def _is_quoted(separator: str) -> bool:
    return len(separator.encode()) == 1 and separator != "\t"


def _fields(line: str, separator: str) -> list[str]:
    """Fields of one line; a quote that is left open leaves a line feed in the last one."""
    if '"' in line and _is_quoted(separator):
        return next(csv.reader([line.replace("\r", " ")], delimiter=separator))
    return line.rstrip("\r\n").split(separator)


def _unquoted(texts: pa.Array) -> pa.Array:
    """Texts without the quotes that a program has put around them, as some do although no separator needs them."""
    is_quoted = pc.match_substring_regex(texts, _QUOTED).fill_null(False)
    inner = pc.replace_substring(pc.replace_substring_regex(texts.filter(is_quoted), _QUOTED, r"\1"), '""', '"')
    return pc.replace_with_mask(texts, is_quoted, inner)


class _Parser:
    """Turns lines of one file into rows."""

    def __init__(self, reading: Reading, header: list[str], separator: str) -> None:
        self._reading, self._separator, self._num_columns = reading, separator, len(header)
        missing = [column for column in reading.columns.values() if column not in header]
        hint = ""
        if missing and not reading.format.header:
            if any(_TIME.fullmatch(name) for name in header):
                raise InputError(
                    f"{reading.file} has no column {missing[0]!r} and no header line (it begins with "
                    f"{separator.join(header)[:200]!r}); name all its columns in order in "
                    f"{reading.format_setting}.header."
                )
            if len(missing) == len(reading.columns):
                hint = f"; if its first line is a row, name the columns in {reading.format_setting}.header instead"
        self._positions = {name: reading.place(name, header, hint) for name in reading.columns}
        self._is_quoted = _is_quoted(separator)

    def parse(self, block: bytes, *, is_end: bool) -> tuple[Rows, bytes]:
        """Rows of a block of whole lines, and its end where a record goes on beyond it."""
        needs_python = (
            not block
            or block.isspace()
            or (self._is_quoted and b'"' in block)
            or (b"\0" in block and TOO_LONG in block)
            # Arrow sees a line break in any carriage return.
            or (b"\r" in block and block.count(b"\r") != block.count(b"\r\n"))
            or (len(self._separator.encode()) > 1 and _STANDS_FOR_SEPARATOR.encode() in block)
        )
        rows, rest = self._with_python(block, is_end=is_end) if needs_python else (self._with_arrow(block), b"")
        if TEXT in rows.columns and not self._is_quoted:
            rows.columns[TEXT] = _unquoted(rows.columns[TEXT])
        return rows, rest

    def _with_arrow(self, block: bytes) -> Rows:
        """Rows of a block without quoted fields."""
        separator = self._separator
        if len(separator.encode()) > 1:
            block, separator = block.replace(separator.encode(), _STANDS_FOR_SEPARATOR.encode()), _STANDS_FOR_SEPARATOR
        bad: list[pyarrow.csv.InvalidRow] = []

        def skip(row: pyarrow.csv.InvalidRow) -> str:
            bad.append(row)
            return "skip"

        types = {str(position): pa.string() for position in self._positions.values()}
        names = [str(position) for position in range(self._num_columns)]
        with reading_errors(self._reading.file):
            table = pyarrow.csv.read_csv(
                pa.BufferReader(block),
                # Without threads the parser tells the number of a bad row.
                pyarrow.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
                pyarrow.csv.ParseOptions(delimiter=separator, quote_char=False, invalid_row_handler=skip),
                pyarrow.csv.ConvertOptions(check_utf8=False, column_types=types, include_columns=list(types)),
            )
        first = self._reading.num_rows + 1
        self._reading.count(table.num_rows + len(bad))
        for row in bad:
            text = row.text.replace(separator, self._separator)
            self._reading.rejects.add_line(self._reading.file.source, first + row.number - 1, WRONG_FIELDS, text)
        numbers = np.delete(np.arange(first, self._reading.num_rows + 1), [row.number - 1 for row in bad])
        columns = {name: without_nan(table[str(at)].combine_chunks()) for name, at in self._positions.items()}
        return Rows(columns=columns, numbers=numbers)

    def _with_python(self, block: bytes, *, is_end: bool) -> tuple[Rows, bytes]:
        """What `parse` returns, record by record."""
        text = io.StringIO(block.decode(), newline="\n")
        # What stands for a line that is too long has lost its end, and a closing quote with it.
        lines = [line.replace('"', "") if line.startswith(_TOO_LONG) else line for line in text]
        lines = [line for line in lines if self._is_quoted or line.strip("\r\n")]
        records: list[list[str]] = []
        numbers: list[int] = []
        rest: list[str] = []
        for fields, start, end, reason in self._records(lines):
            if reason == UNCLOSED_QUOTE and not is_end and sum(map(len, lines[start:])) <= MAX_RECORD_BYTES:
                rest = lines[start:]
                break
            own, has_several = lines[start:end], end - start > 1
            has_gap = any(line.startswith(_TOO_LONG) for line in own)
            if reason or has_gap or len(fields) != self._num_columns or (has_several and self._swallows(own)):
                self._reject(own, UNCLOSED_QUOTE if has_several else reason or WRONG_FIELDS)
            else:
                self._reading.count(1)
                numbers.append(self._reading.num_rows)
                records.append(fields)
        texts = {name: [fields[at] for fields in records] for name, at in self._positions.items()}
        columns = {name: without_nan(pa.array(own, pa.string())) for name, own in texts.items()}
        return Rows(columns=columns, numbers=np.array(numbers, dtype=np.int64)), "".join(rest).encode()

    def _records(self, lines: Sequence[str]) -> Iterator[tuple[list[str], int, int, str]]:
        """Fields of each record, its first line, the line behind it, and why it cannot be used."""
        reader = csv.reader(lines, delimiter=self._separator, strict=True) if self._is_quoted else None
        start = end = 0
        while start < len(lines):
            try:
                fields, reason = next(reader) if reader else _fields(lines[start], self._separator), ""
            except csv.Error as error:
                fields, reason = [], UNCLOSED_QUOTE if "end of data" in str(error) else BROKEN_QUOTE
                if '"' not in lines[start]:  # a carriage return within a field
                    fields, reason = _fields(lines[start], self._separator), ""
            end = reader.line_num if reader else start + 1
            yield fields, start, end, LINE_TOO_LONG if lines[start].startswith(_TOO_LONG) else reason
            start = end

    def _swallows(self, lines: Sequence[str]) -> bool:
        """Whether a record of several lines looks like several rows, of which some stand between two stray quotes."""
        lines = [line for line in lines if line.strip("\r\n")]
        return any(map(self._is_row, lines[1:-1])) or (self._is_row(lines[-1]) and self._is_row(lines[0]))

    def _is_row(self, line: str) -> bool:
        plain = line.rstrip("\r\n")
        for fields in (_fields(plain, self._separator), plain.replace('"', "").split(self._separator)):
            if len(fields) == self._num_columns:
                values = {name: fields[position].strip('"') for name, position in self._positions.items()}
                ids = [values[name] for name in (USER_ID, ITEM_ID) if name in values]
                if len(ids) == 1:  # of texts, in which a comma within a sentence has a space behind it
                    is_id = re.fullmatch(r"\S+", ids[0]) is not None
                    return is_id and not any(field.startswith(" ") for field in fields)
                time = values.get(TIME, "").strip()
                is_time = _MAY_BE_TIME.fullmatch(time) or (not time and plain.count('"') < 2)
                return all(text.strip() for text in ids) and bool(is_time)
        return False

    def _reject(self, lines: list[str], reason: str) -> None:
        for line in (line for line in lines if line.strip("\r\n")):
            is_long = line.startswith(_TOO_LONG)
            self._reading.reject(LINE_TOO_LONG if is_long else reason, line.removeprefix(_TOO_LONG).rstrip("\r\n"))
