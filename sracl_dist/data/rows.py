"""What every reader of files yields: batches of rows with the wanted columns, and where each row stood."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import CATEGORIES, ITEM_ID, TEXT, TIME, USER_ID, VECTOR
from sracl_dist.config.sections import FileFormat
from sracl_dist.data.files import DataFile
from sracl_dist.data.rejects import Rejects
from sracl_dist.errors import InputError

BATCH_ROWS = 1 << 17
REQUIRED = (USER_ID, ITEM_ID, TIME)
"""Columns that hold one value per row; others may hold lists."""
INVALID = "\U0010ffff"
"""Stands where a byte was not valid in the file's encoding: a code point that no text may contain."""
_MAX_WHOLE = 2.0**53
"""From here on a double does not hold every whole number."""
NOT_A_NUMBER = ("nan", "NaN")
"""Texts that count as a missing value: what programs write for an empty field of a column of numbers."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a file."""

    columns: dict[str, pa.Array]
    """Arrays by the pipeline's column names: strings with null for a missing value; categories also as lists of
    strings, vectors also as lists of numbers, and times of Parquet files also as integers, doubles, dates and
    timestamps."""
    numbers: NDArray[np.int64]
    """1-based number of each row in its file; see `Reading.num_rows`. In JSON lines it is the number of the line."""

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(kw_only=True)
class Reading:
    """One file that is being read, and what has been found so far."""

    file: DataFile
    wanted: dict[str, str]
    """The file's column name by the pipeline's."""
    setting: str
    """Configuration key of a column's name, with {} for the column, such as data.columns.{}; for messages."""
    format_setting: str
    """Configuration key of `format`, such as data.format."""
    rejects: Rejects
    format: FileFormat = field(default_factory=FileFormat)
    """How a text file is written."""
    flags: tuple[str, ...] = ()
    """Columns of 0 and 1 whose names become the categories."""
    separator: str = "|"
    """What separates categories within one string."""
    row_groups: range | None = None
    """Row groups of a Parquet file to read; None reads all."""
    batch_rows: int = BATCH_ROWS
    """Rows of a Parquet file that are read at a time."""
    first_row: int = 0
    """Rows of the file before those."""
    num_rows: int = 0
    """Rows read, rejected ones included. Header and blank lines are no rows; a quoted field of several lines is in one
    row, but each line of a damaged one is a row of its own."""
    num_bytes: int = 0
    """Bytes of the file consumed."""

    @property
    def columns(self) -> dict[str, str]:
        """The file's column name by the pipeline's, or by its own for a flag."""
        wanted = {name: column for name, column in self.wanted.items() if not self.flags or name != CATEGORIES}
        return wanted | {flag: flag for flag in self.flags}

    def count(self, num: int) -> None:
        """Count rows that were read, whatever becomes of them."""
        self.num_rows += num
        self.rejects.num_read += num

    def reject(self, reason: str, text: str) -> None:
        """Count a row and reject it."""
        self.count(1)
        self.rejects.add_line(self.file.source, self.first_row + self.num_rows, reason, text)

    def place(self, name: str, there: Sequence[str], hint: str = "") -> int:
        """Which of the file's columns is the one wanted under this name.

        Raises:
            InputError: none or several of them are.
        """
        column = self.columns[name]
        found = [at for at, other in enumerate(there) if other == column]
        if len(found) > 1:
            raise InputError(f"{self.file} has the column {column!r} {len(found)} times; rename all but one.")
        if not found:
            shown = ", ".join(there[:20]) or "none"
            is_needed = name in (USER_ID, ITEM_ID, TEXT, VECTOR)
            fix = "to the right name" if is_needed else "to the right name, or to null to do without"
            setting = self.setting.format(name)
            raise InputError(f"{self.file} has no column {column!r} (it has: {shown}); set {setting} {fix}{hint}.")
        return found[0]


def without_nan(texts: pa.Array) -> pa.Array:
    """The texts with null in the place of `NOT_A_NUMBER`."""
    is_missing = pc.or_(*(pc.equal(texts, text) for text in NOT_A_NUMBER))
    return pc.if_else(is_missing, None, texts) if pc.any(is_missing).as_py() else texts


def float_texts(values: pa.Array) -> pa.Array:
    """Numbers as text; whole numbers without a fraction, because an integer column with gaps is stored as floats.

    What is not finite is null.
    """
    numbers = values.cast(pa.float64())
    is_whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less(pc.abs(numbers), _MAX_WHOLE))
    integers = pc.if_else(is_whole, numbers, None).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(integers, pc.if_else(pc.is_finite(numbers), values, None).cast(pa.string()))


def lists_of(texts: pa.Array, places: NDArray[np.int64], num_rows: int) -> pa.Array:
    """One list<string> per row, of those texts that are not null and whose place is the row; places ascend."""
    is_text = texts.is_valid()
    counts = np.bincount(places[is_text.to_numpy(zero_copy_only=False)], minlength=num_rows)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    return pa.ListArray.from_arrays(offsets, texts.filter(is_text))
