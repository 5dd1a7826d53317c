"""Rows that cannot be used: counted by reason and kept with their place, so that nothing is lost in silence."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import REASON, ROW, SOURCE, VALUE

EXCERPT_CHARS = 80
_LINES_PER_PART = 1 << 16
SCHEMA = pa.schema([(SOURCE, pa.string()), (ROW, pa.int64()), (REASON, pa.string()), (VALUE, pa.string())])

WRONG_FIELDS = "wrong number of fields"
UNCLOSED_QUOTE = "inside an unclosed quote"
LINE_TOO_LONG = "line too long"
NOT_JSON = "not a JSON object"
INVALID_UTF8 = "invalid UTF-8"
EMPTY_USER = "empty user id"
EMPTY_ITEM = "empty item id"
BROKEN_ID = "line break in an id"
MISSING_TIME = "missing time"
WRONG_TIME = "time is neither a number nor an ISO date-time"
MIXED_TIME = "time is of another kind than the log's"
NEGATIVE_TIME = "negative time"
WRONG_RATING = "rating is not a number"
DUPLICATE = "duplicate of an earlier row"
NO_INTERACTIONS = "text of an item without interactions"
REPEATED_ITEM = "text of an item that an earlier row describes"

UNREADABLE = (WRONG_FIELDS, UNCLOSED_QUOTE, LINE_TOO_LONG, NOT_JSON, INVALID_UTF8, EMPTY_ITEM, BROKEN_ID)
"""Reasons for which a row of item texts is broken rather than superfluous."""


class Rejects:
    """Collects rejected rows of one kind of file, and counts all rows that were read."""

    def __init__(self) -> None:
        self.num_read = 0
        self.counts: Counter[str] = Counter()
        self._parts: list[pa.RecordBatch] = []
        self._lines: list[tuple[str, int, str, str]] = []

    def __len__(self) -> int:
        return self.counts.total()

    def add(
        self, source: str, rows: Sequence[int] | NDArray[np.int64], reason: str, values: Sequence[str] | pa.Array
    ) -> None:
        """Reject rows of one file for one reason.

        Args:
            source: name of the file.
            rows: 1-based number of each row among the file's data rows, or of each line for JSON lines.
            reason: one of this module's reasons.
            values: what each row held; cut to `EXCERPT_CHARS` characters.
        """
        num = len(rows)
        if not num:
            return
        self.counts[reason] += num
        columns = [
            pa.repeat(pa.scalar(source), num),
            pa.array(rows, pa.int64()),
            pa.repeat(pa.scalar(reason), num),
            excerpts(values),
        ]
        self._parts.append(pa.record_batch(columns, schema=SCHEMA))

    def add_line(self, source: str, row: int, reason: str, value: str) -> None:
        """Reject one row; see `add`."""
        self.counts[reason] += 1
        self._lines.append((source, row, reason, value[:EXCERPT_CHARS]))
        if len(self._lines) >= _LINES_PER_PART:
            self._pack_lines()

    def _pack_lines(self) -> None:
        if self._lines:
            sources, rows, reasons, values = zip(*self._lines, strict=True)
            columns = [pa.array(sources), pa.array(rows, pa.int64()), pa.array(reasons), excerpts(values)]
            self._parts.append(pa.record_batch(columns, schema=SCHEMA))
            self._lines.clear()

    def table(self) -> pa.Table:
        """All rejected rows, those of one file and reason in the order in which they were found."""
        self._pack_lines()
        return pa.Table.from_batches(self._parts, schema=SCHEMA)


def commonest(counts: Counter[str]) -> str:
    """The reason that most rows have, with its count."""
    reason, num = counts.most_common(1)[0]
    return f"{reason}: {num:,} rows"


def excerpts(values: Sequence[str] | pa.Array) -> pa.Array:
    """The first characters of each text on one line, with a null shown as an empty text."""
    texts = values.cast(pa.string()) if isinstance(values, pa.Array) else pa.array(values, pa.string())
    short = pc.utf8_slice_codeunits(texts.fill_null(""), 0, EXCERPT_CHARS)
    return pc.replace_substring_regex(short, r"[[:cntrl:]\x{10FFFF}]", " ")
