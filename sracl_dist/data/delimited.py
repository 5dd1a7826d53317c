"""CSV, TSV, RecBole's atomic files and MovieLens' .dat files, streamed through Arrow's parser."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from sracl_dist.data.lines import CHUNK_BYTES, TOO_LONG, marked_utf8, shortened, text_chunks
from sracl_dist.data.rejects import LINE_TOO_LONG, UNCLOSED_QUOTE, WRONG_FIELDS
from sracl_dist.data.rows import Reading, Rows, reading_errors
from sracl_dist.errors import InputError

# A row has to fit into a block, so a quoted field of several lines must not be longer either.
BLOCK_BYTES = 2 * CHUNK_BYTES
_TOO_LONG = TOO_LONG.decode()


@dataclass(frozen=True, kw_only=True)
class Delimited:
    """How fields are laid out in a delimited file."""

    delimiter: str = ","
    quoted: bool = False
    """Whether a field may stand in double quotes, with delimiters and line breaks inside."""
    typed_header: bool = False
    """Whether column names look like `user_id:token`; the part before the colon is enough then."""
    header: tuple[str, ...] = ()
    """Column names of a file without a header line."""
    latin1: bool = False
    """Whether the text is Latin-1 instead of UTF-8."""
    double_colon: bool = False
    """Whether fields are separated by `::`; they reach the parser with the delimiter in between."""


CSV = Delimited(quoted=True)
TSV = Delimited(delimiter="\t")
ATOMIC = Delimited(delimiter="\t", typed_header=True)


def read_delimited(reading: Reading, layout: Delimited) -> Iterator[Rows]:
    """Yield the rows with the right number of fields and reject the others; blank lines are no rows.

    Raises:
        InputError: the file is missing, damaged or empty, or lacks a column.
    """
    chunks = _clean_chunks(reading, layout)
    header, rest = _split_header(reading, layout, next(chunks, b""))
    positions = _positions(reading, header, layout)
    bad_rows = _BadRows(reading)
    stream = pa.PythonFile(_ChunkStream(rest, chunks), mode="r")
    with reading_errors(reading.path):
        for batch in _batches(reading, stream, layout, len(header), positions, bad_rows):
            rows = Rows(
                columns={name: batch.column(str(position)) for name, position in positions.items()},
                numbers=bad_rows.numbers(batch.num_rows),
            )
            reading.count(len(rows))
            yield rows


def _clean_chunks(reading: Reading, layout: Delimited) -> Iterator[bytes]:
    forbidden = bytes.maketrans(b'",\t:|', b"     ")

    def shorten(line: bytes) -> bytes:
        # So many delimiters make it a row with a wrong number of fields, whatever the header is.
        return shortened(line.translate(forbidden)) + layout.delimiter.encode() * 1000

    for chunk in text_chunks(reading, shorten):
        if layout.double_colon:
            chunk = chunk.replace(b"::", layout.delimiter.encode())
        yield chunk.decode("latin-1").encode() if layout.latin1 else marked_utf8(chunk)


def _split_header(reading: Reading, layout: Delimited, text: bytes) -> tuple[list[str], bytes]:
    if layout.header:
        return list(layout.header), text
    line, _, rest = text.partition(b"\n")
    if not line.strip():
        raise InputError(f"{reading.path} is empty or has no header line; write the column names into its first line.")
    names = line.decode().strip("\r\n")
    quoted = layout.quoted and '"' in names
    fields = next(csv.reader([names], delimiter=layout.delimiter)) if quoted else names.split(layout.delimiter)
    return [name.strip() for name in fields], rest


def _positions(reading: Reading, header: list[str], layout: Delimited) -> dict[str, int]:
    reading.seen_columns = dict.fromkeys(header)
    short = [name.split(":", 1)[0] for name in header] if layout.typed_header else header
    positions = {}
    for name, column in reading.wanted.items():
        found = [at for at, (full, part) in enumerate(zip(header, short, strict=True)) if column in (full, part)]
        if not found:
            raise reading.missing(name)
        if len(found) > 1:
            raise InputError(f"{reading.path} has the column {column!r} {len(found)} times; rename all but one.")
        positions[name] = found[0]
    return positions


def _batches(
    reading: Reading,
    stream: pa.PythonFile,
    layout: Delimited,
    num_columns: int,
    positions: dict[str, int],
    bad_rows: "_BadRows",
) -> Iterator[pa.RecordBatch]:
    used = [str(position) for position in dict.fromkeys(positions.values())]
    try:
        yield from pyarrow.csv.open_csv(
            stream,
            # Without threads the parser tells the number of a bad row.
            pyarrow.csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=[str(at) for at in range(num_columns)]
            ),
            pyarrow.csv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if layout.quoted else False,
                newlines_in_values=layout.quoted,
                invalid_row_handler=bad_rows.skip,
            ),
            pyarrow.csv.ConvertOptions(
                check_utf8=False, column_types=dict.fromkeys(used, pa.string()), include_columns=used
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            return
        if "straddling" in str(error):
            raise InputError(
                f"{reading.path} has a quoted field of over {BLOCK_BYTES >> 20} MiB after data row "
                f"{reading.num_rows:,}; close the quote that was left open there."
            ) from None
        raise


class _BadRows:
    """Takes note of rows with a wrong number of fields, and numbers the rows between them."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._bad: list[int] = []
        self._num_extra_lines = 0
        self._num_good = 0

    def skip(self, row: pyarrow.csv.InvalidRow) -> str:
        """Reject a row; a quote left open swallows lines, and each of them counts as a row."""
        lines = row.text.split("\n")
        first = row.number + self._num_extra_lines
        numbers = list(range(first, first + len(lines)))
        self._num_extra_lines += len(lines) - 1
        self._bad += numbers
        self._reading.count(len(numbers))
        reason = WRONG_FIELDS if len(lines) == 1 else UNCLOSED_QUOTE
        if lines[0].startswith(_TOO_LONG):
            reason, lines[0] = LINE_TOO_LONG, lines[0].removeprefix(_TOO_LONG).rstrip(",\t")
        for number, line in zip(numbers, lines, strict=True):
            self._reading.rejects.add_line(self._reading.source, number, reason, line)
        return "skip"

    def numbers(self, num: int) -> NDArray[np.int64]:
        """Numbers of the next `num` good rows.

        The parser reads ahead, so the list of bad rows may reach beyond them. The bad row i (from 0) with number b
        comes before the good row g (from 1) exactly when b - i <= g.
        """
        good = np.arange(self._num_good + 1, self._num_good + num + 1, dtype=np.int64)
        self._num_good += num
        if not self._bad:
            return good
        bad = np.asarray(self._bad, dtype=np.int64)
        return good + np.searchsorted(bad - np.arange(len(bad)), good, side="right")


class _ChunkStream(io.RawIOBase):
    """A stream over pieces of text, for Arrow."""

    def __init__(self, first: bytes, chunks: Iterator[bytes]) -> None:
        self._rest, self._chunks = first, chunks

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            self._rest = next(self._chunks, b"")
        parts, missing = [], size
        while self._rest and missing > 0:
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
            if not self._rest:
                self._rest = next(self._chunks, b"")
        return b"".join(parts)
