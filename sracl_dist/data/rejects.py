"""Rows that cannot be used, with place and reason, and what became of all rows, so that nothing is lost in silence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import REASON, ROW, SOURCE, VALUE
from sracl_dist.errors import StageError

EXCERPT_CHARS = 80
_LINES_PER_PART = 1 << 16
SCHEMA = pa.schema([(SOURCE, pa.string()), (ROW, pa.int64()), (REASON, pa.string()), (VALUE, pa.string())])

WRONG_FIELDS = "wrong number of fields"
UNCLOSED_QUOTE = "inside an unclosed quote"
BROKEN_QUOTE = "text behind a closing quote"
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
UNKNOWN_ID = "id that the log does not have"
EMPTY_TEXT = "empty text"
OTHER_TEXT = "another text of an id that an earlier row describes"
NO_VECTOR = "no vector"

UNREADABLE = (WRONG_FIELDS, UNCLOSED_QUOTE, BROKEN_QUOTE, LINE_TOO_LONG, NOT_JSON, INVALID_UTF8, EMPTY_ITEM, BROKEN_ID)
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


def excerpts(values: Sequence[str] | pa.Array) -> pa.Array:
    """The first characters of each text on one line, with a null shown as an empty text."""
    texts = values.cast(pa.string()) if isinstance(values, pa.Array) else pa.array(values, pa.string())
    short = pc.utf8_slice_codeunits(texts.fill_null(""), 0, EXCERPT_CHARS)
    return pc.replace_substring_regex(short, r"[[:cntrl:]\x{10FFFF}]", " ")


@dataclass(kw_only=True)
class Tally:
    """What became of the rows of a log, or of a part of it."""

    num_read: int = 0
    """Rows read from the files."""
    num_kept: int = 0
    num_other_events: int = 0
    """Rows left out because of data.events."""
    num_below_rating: int = 0
    """Rows left out because of data.min_rating."""
    num_over_limit: int = 0
    """Rows left out because of data.max_user_interactions."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rejected rows by reason."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Tally":
        """Read one that was written as JSON."""
        return cls(**values | {"rejected": Counter(values["rejected"])})

    def add(self, other: "Tally") -> None:
        """Count another part as well."""
        self.num_read += other.num_read
        self.num_kept += other.num_kept
        self.num_other_events += other.num_other_events
        self.num_below_rating += other.num_below_rating
        self.num_over_limit += other.num_over_limit
        self.rejected.update(other.rejected)

    def check(self) -> None:
        """Make sure that every row read is either kept, rejected or left out.

        Raises:
            StageError: they do not add up.
        """
        num_left_out = self.num_other_events + self.num_below_rating + self.num_over_limit
        num_known = self.num_kept + self.rejected.total() + num_left_out
        if self.num_read != num_known:
            raise StageError(
                f"{self.num_read:,} rows of the log were read but {num_known:,} are accounted for; report this as a "
                f"bug."
            )
