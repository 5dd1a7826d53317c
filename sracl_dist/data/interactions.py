"""The log in one schema: who took what when, in time order, with every unusable row accounted for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ITEM_ID, RATING, TIME, USER_ID
from sracl_dist.config.sections import LogColumns
from sracl_dist.data.lines import INVALID
from sracl_dist.data.readers import read_files
from sracl_dist.data.rejects import (
    BROKEN_ID,
    DUPLICATE,
    EMPTY_ITEM,
    EMPTY_USER,
    INVALID_UTF8,
    WRONG_RATING,
    Rejects,
)
from sracl_dist.data.rows import Rows
from sracl_dist.data.times import TimeParser
from sracl_dist.errors import InputError, StageError

Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Log:
    """The usable interactions, E of them; `read_log` keeps the files' order, `in_time_order` sorts them."""

    users: NDArray[np.int32]
    """[E] index into user_ids."""
    items: NDArray[np.int32]
    """[E] index into item_ids."""
    times: NDArray[np.int64] | None
    """[E] numbers as in the log, or milliseconds where it has dates; None where order is all there is."""
    rows: NDArray[np.int64]
    """[E] 1-based number of the row in its file."""
    files: NDArray[np.int32]
    """[E] index into sources."""
    user_ids: pa.Array
    """The users' own ids, by first appearance."""
    item_ids: pa.Array
    """The items' own ids, by first appearance."""
    sources: list[str]
    """Names of the files."""
    num_read: int
    """Rows read from the files, whatever became of them."""
    num_below_rating: int
    """Rows left out because of data.min_rating."""

    def __len__(self) -> int:
        return len(self.users)

    def select(self, chosen: NDArray[np.int64] | Mask) -> "Log":
        """The log with only these rows, in this order."""
        return replace(
            self,
            users=self.users[chosen],
            items=self.items[chosen],
            times=None if self.times is None else self.times[chosen],
            rows=self.rows[chosen],
            files=self.files[chosen],
        )


def read_log(
    paths: Sequence[Path],
    columns: LogColumns,
    min_rating: float | None,
    rejects: Rejects,
    setting: str = "data.columns",
) -> Log:
    """Read all files of the log; rows that cannot be used go to `rejects`.

    What stays is 28 bytes per row (user, item and file 4 each, time and row number 8 each), beside every distinct id.
    The batches and the whole are held at once when they are joined, with every distinct id once per batch it occurs
    in: measured 118 bytes per row at the peak.

    Raises:
        InputError: a file is missing or damaged or lacks a column, or there is no row at all.
        StageError: rows were lost.
    """
    wanted = {USER_ID: columns.user_id, ITEM_ID: columns.item_id}
    if columns.time is not None:
        wanted[TIME] = columns.time
    if min_rating is not None and columns.rating is not None:
        wanted[RATING] = columns.rating
    parts = _Parts(has_times=columns.time is not None)
    parser = TimeParser()
    for reading, rows in read_files(paths, wanted, setting, rejects, "prepare: reading the log"):
        if reading.source not in parts.sources:
            parts.sources.append(reading.source)
        parts.add(rows, parser, min_rating, reading.source, rejects)
    log = parts.log(rejects.num_read)
    check_balance(log, rejects)
    if not log.num_read:
        raise InputError(f"The log {', '.join(map(str, paths))} holds no row; name files with interactions.")
    return log


def check_balance(log: Log, rejects: Rejects) -> None:
    """Make sure that every row read is either kept, rejected or left out for its rating.

    Raises:
        StageError: they do not add up.
    """
    num_known = len(log) + len(rejects) + log.num_below_rating
    if log.num_read != num_known:
        raise StageError(
            f"{log.num_read:,} rows of the log were read but {num_known:,} are accounted for; report this as a bug."
        )


def in_time_order(log: Log, rejects: Rejects) -> Log:
    """Sort by user, then time, then the order of arrival, and reject repeats of the same user, item and time.

    Without times nothing is a repeat, and each user's rows stay in the order of the files.
    """
    if log.times is None:
        return log.select(np.argsort(log.users, kind="stable"))
    order = np.lexsort((log.times, log.users))
    repeated = _repeated(log.users[order], log.times[order], log.items[order])
    log = log.select(order)
    where = np.flatnonzero(repeated)
    for file in np.unique(log.files[where]):
        chosen = where[log.files[where] == file]
        values = log.item_ids.take(pa.array(log.items[chosen]))
        rejects.add(log.sources[file], log.rows[chosen], DUPLICATE, values)
    return log.select(~repeated) if len(where) else log


def _repeated(users: NDArray[np.int32], times: NDArray[np.int64], items: NDArray[np.int32]) -> Mask:
    """Rows that equal an earlier one; users and times are sorted."""
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False))
    order = tied[np.lexsort((tied, items[tied], times[tied], users[tied]))]
    equal = (
        (users[order][1:] == users[order][:-1])
        & (times[order][1:] == times[order][:-1])
        & (items[order][1:] == items[order][:-1])
    )
    repeated = np.zeros(len(users), dtype=np.bool_)
    repeated[order[1:][equal]] = True
    return repeated


@dataclass(kw_only=True)
class _Parts:
    """Batches of the log while it is read."""

    has_times: bool
    sources: list[str] = field(default_factory=list)
    users: list[pa.Array] = field(default_factory=list)
    items: list[pa.Array] = field(default_factory=list)
    times: list[NDArray[np.int64]] = field(default_factory=list)
    rows: list[NDArray[np.int64]] = field(default_factory=list)
    files: list[NDArray[np.int32]] = field(default_factory=list)
    num_below_rating: int = 0

    def add(self, rows: Rows, parser: TimeParser, min_rating: float | None, source: str, rejects: Rejects) -> None:
        """Keep the usable rows of a batch."""
        columns = rows.columns
        bad = np.zeros(len(rows), dtype=np.bool_)
        for name, reason in _text_reasons(columns):
            _reject(rows, bad, reason, name, source, rejects)
        times = None
        if self.has_times:
            times, reasons = parser.parse(columns[TIME])
            for why, mask in reasons:
                _reject(rows, bad, (why, mask), TIME, source, rejects)
        keep = ~bad
        if RATING in columns:
            ratings = _numbers(columns[RATING])
            _reject(rows, bad, (WRONG_RATING, np.isnan(ratings)), RATING, source, rejects)
            low = ~bad & (ratings < (min_rating or 0.0)) if min_rating is not None else np.zeros_like(bad)
            self.num_below_rating += int(low.sum())
            keep = ~bad & ~low
        self._append(rows, times, keep)

    def _append(self, rows: Rows, times: NDArray[np.int64] | None, keep: Mask) -> None:
        chosen = None if keep.all() else pa.array(keep)
        for ids, name in ((self.users, USER_ID), (self.items, ITEM_ID)):
            values = rows.columns[name] if chosen is None else rows.columns[name].filter(chosen)
            ids.append(values.cast(pa.large_string()).dictionary_encode())
        if times is not None:
            self.times.append(times[keep])
        self.rows.append(rows.numbers[keep])
        self.files.append(np.full(int(keep.sum()), len(self.sources) - 1, dtype=np.int32))

    def log(self, num_read: int) -> Log:
        """All batches together."""
        users, user_ids = _unified(self.users)
        items, item_ids = _unified(self.items)
        return Log(
            users=users,
            items=items,
            times=np.concatenate([np.zeros(0, np.int64), *self.times]) if self.has_times else None,
            rows=np.concatenate([np.zeros(0, np.int64), *self.rows]),
            files=np.concatenate([np.zeros(0, np.int32), *self.files]),
            user_ids=user_ids,
            item_ids=item_ids,
            sources=self.sources,
            num_read=num_read,
            num_below_rating=self.num_below_rating,
        )


def _unified(parts: list[pa.Array]) -> tuple[NDArray[np.int32], pa.Array]:
    """Codes over one dictionary in the order of first appearance."""
    kind = pa.dictionary(pa.int32(), pa.large_string())
    whole = pa.chunked_array(parts, kind).unify_dictionaries()
    codes = [np.zeros(0, np.int32), *(chunk.indices.to_numpy() for chunk in whole.chunks)]
    ids = whole.chunk(0).dictionary if whole.num_chunks else pa.array([], pa.large_string())
    return np.concatenate(codes), ids


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
