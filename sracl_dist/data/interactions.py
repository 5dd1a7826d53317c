"""Rows of the log that can be used, and for every other one the reason why it cannot."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ITEM_ID, RATING, TIME, USER_ID
from sracl_dist.config.sections import LogColumns
from sracl_dist.data.lines import INVALID
from sracl_dist.data.rejects import BROKEN_ID, EMPTY_ITEM, EMPTY_USER, INVALID_UTF8, WRONG_RATING, Rejects
from sracl_dist.data.rows import Rows
from sracl_dist.data.times import TimeParser
from sracl_dist.errors import StageError

Mask = NDArray[np.bool_]


@dataclass(kw_only=True)
class Tally:
    """What became of the rows of a log, or of a part of it."""

    num_read: int = 0
    """Rows read from the files."""
    num_kept: int = 0
    num_below_rating: int = 0
    """Rows left out because of data.min_rating."""
    num_over_limit: int = 0
    """Rows left out because of data.max_user_interactions."""
    rejected: Counter[str] = field(default_factory=Counter)
    """Rejected rows by reason."""

    def add(self, other: "Tally") -> None:
        """Count another part as well."""
        self.num_read += other.num_read
        self.num_kept += other.num_kept
        self.num_below_rating += other.num_below_rating
        self.num_over_limit += other.num_over_limit
        self.rejected.update(other.rejected)

    def check(self) -> None:
        """Make sure that every row read is either kept, rejected or left out.

        Raises:
            StageError: they do not add up.
        """
        num_known = self.num_kept + self.rejected.total() + self.num_below_rating + self.num_over_limit
        if self.num_read != num_known:
            raise StageError(
                f"{self.num_read:,} rows of the log were read but {num_known:,} are accounted for; report this as a "
                f"bug."
            )


def wanted_columns(columns: LogColumns, min_rating: float | None) -> dict[str, str]:
    """The file's column name by the pipeline's, for those that are read."""
    wanted = {USER_ID: columns.user_id, ITEM_ID: columns.item_id}
    if columns.time is not None:
        wanted[TIME] = columns.time
    if min_rating is not None and columns.rating is not None:
        wanted[RATING] = columns.rating
    return wanted


@dataclass(frozen=True, kw_only=True)
class UsableRows:
    """Rows of a batch that can be used, N of them."""

    user_ids: pa.LargeStringArray
    item_ids: pa.LargeStringArray
    times: NDArray[np.int64] | None
    """[N] numbers as in the log, or milliseconds where it has dates; None where order is all there is."""
    numbers: NDArray[np.int64]
    """[N] 1-based number of each row in its file."""
    num_below_rating: int
    """Rows that were left out for their rating."""


def usable_rows(rows: Rows, parser: TimeParser, min_rating: float | None, source: str, rejects: Rejects) -> UsableRows:
    """Take the usable rows of a batch; the others go to `rejects`, but for those with a low rating.

    Args:
        rows: the batch; it holds a rating only where one matters.
        parser: knows the kind of the log's times.
        min_rating: lowest rating of an interaction.
        source: name of the file.
        rejects: takes the rows that cannot be used.
    """
    columns = rows.columns
    bad = np.zeros(len(rows), dtype=np.bool_)
    for name, reason in _text_reasons(columns):
        _reject(rows, bad, reason, name, source, rejects)
    times = None
    if TIME in columns:
        times, reasons = parser.parse(columns[TIME])
        for why, mask in reasons:
            _reject(rows, bad, (why, mask), TIME, source, rejects)
    num_below, keep = 0, ~bad
    if RATING in columns:
        ratings = _numbers(columns[RATING])
        _reject(rows, bad, (WRONG_RATING, np.isnan(ratings)), RATING, source, rejects)
        low = ~bad & (ratings < (min_rating or 0.0)) if min_rating is not None else np.zeros_like(bad)
        num_below, keep = int(low.sum()), ~bad & ~low
    whole = bool(keep.all())
    chosen = pa.array(keep)
    ids = [columns[name] if whole else columns[name].filter(chosen) for name in (USER_ID, ITEM_ID)]
    return UsableRows(
        user_ids=ids[0].cast(pa.large_string()),
        item_ids=ids[1].cast(pa.large_string()),
        times=times if times is None or whole else times[keep],
        numbers=rows.numbers if whole else rows.numbers[keep],
        num_below_rating=num_below,
    )


def _text_reasons(columns: dict[str, pa.Array]) -> list[tuple[str, tuple[str, Mask]]]:
    """For each column the reasons for which its text makes a row unusable."""
    reasons = [
        (name, (INVALID_UTF8, invalid_utf8(values)))
        for name, values in columns.items()
        if pa.types.is_string(values.type)
    ]
    for name, reason in ((USER_ID, EMPTY_USER), (ITEM_ID, EMPTY_ITEM)):
        reasons.append((name, (reason, empty_ids(columns[name]))))
        reasons.append((name, (BROKEN_ID, as_mask(pc.match_substring(columns[name], "\n")))))
    return reasons


def _reject(rows: Rows, bad: Mask, found: tuple[str, Mask], name: str, source: str, rejects: Rejects) -> None:
    """Reject the rows of the mask that are not bad yet, and mark them as bad."""
    reason, mask = found
    fresh = mask & ~bad
    if not fresh.any():
        return
    values = rows.columns[name].filter(pa.array(fresh))
    rejects.add(source, rows.numbers[fresh], reason, values)
    bad |= fresh


def invalid_utf8(values: pa.Array) -> Mask:
    """Rows whose text held bytes that are not UTF-8."""
    return as_mask(pc.match_substring(values, INVALID))


def empty_ids(values: pa.Array) -> Mask:
    """Rows whose id is missing, empty or white space."""
    return as_mask(pc.equal(pc.utf8_length(values), 0)) | as_mask(pc.utf8_is_space(values)) | as_mask(values.is_null())


def as_mask(values: pa.Array) -> Mask:
    """A boolean array with false for null."""
    return np.asarray(values.fill_null(False).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _numbers(values: pa.Array) -> NDArray[np.float64]:
    """Ratings; NaN where there is none."""
    try:
        return np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
    except pa.ArrowInvalid:
        return np.array([_number(text) for text in values.to_pylist()], dtype=np.float64)


def _number(text: str | None) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")
