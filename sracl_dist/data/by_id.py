"""Rows of files that say something about ids of the log: profiles and vectors that were made elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, REASON, SOURCE, USER_ID, VALUE
from sracl_dist.config.sections import FileFormat
from sracl_dist.data.files import DataFile, find_files
from sracl_dist.data.readers import read_rows
from sracl_dist.data.rejects import BROKEN_ID, EMPTY_ITEM, EMPTY_USER, INVALID_UTF8, UNKNOWN_ID, Rejects
from sracl_dist.data.rows import BATCH_ROWS, INVALID, Reading, Rows
from sracl_dist.errors import InputError
from sracl_dist.observe import Progress
from sracl_dist.secrets import masked


@dataclass(frozen=True, kw_only=True)
class FilesById:
    """Files with one row per id, and how they are written."""

    patterns: Sequence[str]
    setting: str
    """Configuration key of the patterns, for messages."""
    id_name: str
    """ITEM_ID or USER_ID."""
    columns: dict[str, str]
    """The file's column name by the pipeline's, that of the id among them."""
    column_setting: str
    """Configuration key of a column's name, with {} for the column."""
    format: FileFormat
    format_setting: str
    batch_rows: int = BATCH_ROWS
    """Rows of a Parquet file that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class KnownRows:
    """Rows of a file whose ids the log has."""

    file: DataFile
    places: NDArray[np.int64]
    """[n] place of each row's id among those of the log."""
    columns: dict[str, pa.Array]
    """Arrays by the pipeline's column names, as in `Rows`."""
    numbers: NDArray[np.int64]
    """[n] number of each row in its file."""

    def __len__(self) -> int:
        return len(self.places)

    def filter(self, is_wanted: NDArray[np.bool_]) -> "KnownRows":
        """Those of the rows that are wanted."""
        if is_wanted.all():
            return self
        mask = pa.array(is_wanted)
        columns = {name: values.filter(mask) for name, values in self.columns.items()}
        return KnownRows(
            file=self.file, places=self.places[is_wanted], columns=columns, numbers=self.numbers[is_wanted]
        )


class IdPlaces:
    """Where an id stands among many: sorted hashes, because Arrow would build its table again for every batch.

    >>> IdPlaces(pa.array(["b", "a"])).of(pa.array(["a", None, "x", "b"])).tolist()
    [1, -1, -1, 0]
    """

    def __init__(self, ids: pa.Array) -> None:
        self._ids = ids.cast(pa.large_string())
        hashes = _hashes(self._ids)
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        changes = np.flatnonzero(np.diff(self._hashes)) + 1
        bounds = np.concatenate([[0], changes, [len(hashes)]])
        self._most_alike = int(np.diff(bounds).max(initial=0))

    def __len__(self) -> int:
        return len(self._ids)

    def of(self, asked: pa.Array) -> NDArray[np.int64]:
        """[n] place of each id; -1 of one that is null or not there."""
        asked = asked.cast(pa.large_string())
        places = np.full(len(asked), -1, dtype=np.int64)
        first = np.searchsorted(self._hashes, _hashes(asked))
        texts = pl.Series(asked)
        for step in range(self._most_alike):  # once, unless two ids have the same hash
            candidates = self._order[np.minimum(first + step, len(self._ids) - 1)]
            is_it = (texts == pl.Series(self._ids.take(pa.array(candidates)))).fill_null(value=False).to_numpy()
            places[is_it] = candidates[is_it]
        return places

    def example(self, is_wanted: NDArray[np.bool_]) -> str:
        """The first of the ids that are wanted."""
        text: str = self._ids[int(np.argmax(is_wanted))].as_py()
        return text


def _hashes(ids: pa.Array) -> NDArray[np.uint64]:
    return pl.Series(ids).hash(seed=0).to_numpy()


@dataclass(kw_only=True)
class ReadById:
    """What was found in the files of one kind."""

    ids: IdPlaces
    rejects: Rejects = field(default_factory=Rejects)
    num_same: int = 0
    """Rows that repeat an earlier one of their id."""


def known_rows(files: FilesById, found: ReadById, label: str) -> Iterator[KnownRows]:
    """Yield the rows whose ids the log has, in the order of the files; the others go to the rejects.

    Raises:
        InputError: a file is missing or damaged or lacks a column.
    """
    there = find_files(files.patterns, files.setting)
    progress = Progress(label, sum(file.size for file in there) // 1000, "kB")
    for file in there:
        start = progress.done
        reading = Reading(
            file=file,
            wanted=files.columns,
            setting=files.column_setting,
            format_setting=files.format_setting,
            rejects=found.rejects,
            format=files.format,
            batch_rows=files.batch_rows,
        )
        for rows in read_rows(reading):
            yield _known(rows, file, files.id_name, found)
            progress.update(start + reading.num_bytes // 1000 - progress.done, rejected=len(found.rejects))
    progress.close()


def _known(rows: Rows, file: DataFile, id_name: str, found: ReadById) -> KnownRows:
    places = found.ids.of(rows.columns[id_name])
    why = why_unusable(rows, id_name, pl.Series(pa.array(places, mask=places < 0)), UNKNOWN_ID)
    known = KnownRows(file=file, places=places, columns=rows.columns, numbers=rows.numbers)
    reject(known, why, id_name, found)
    return known.filter(why.is_null().to_numpy())


def reject(rows: KnownRows, why: pl.Series, id_name: str, found: ReadById) -> None:
    """Reject the rows for which there is a reason."""
    for reason in why.drop_nulls().unique().sort().to_list():
        is_bad = (why == reason).fill_null(value=False)
        values = rows.columns[id_name].filter(is_bad.to_arrow())
        found.rejects.add(masked(rows.file.source), rows.numbers[is_bad.to_numpy()], reason, values)


def why_unusable(rows: Rows, id_name: str, places: pl.Series, unknown: str) -> pl.Series:
    """Why each row cannot be used, or null.

    Args:
        rows: the rows, with ids in the column `id_name`.
        id_name: ITEM_ID or USER_ID.
        places: [n] place of each id among those of the log, null where it is unknown.
        unknown: the reason for an unknown id.
    """
    frame = pl.DataFrame({name: pl.from_arrow(values) for name, values in rows.columns.items()})
    texts = [
        pl.col(name).list.join("") if kind == pl.List(pl.String) else pl.col(name)
        for name, kind in frame.schema.items()
        if kind in (pl.String, pl.List(pl.String))
    ]
    reasons = {
        INVALID_UTF8: pl.any_horizontal(text.str.contains(INVALID, literal=True) for text in texts),
        EMPTY_USER if id_name == USER_ID else EMPTY_ITEM: pl.col(id_name).fill_null("").str.strip_chars() == "",
        BROKEN_ID: pl.col(id_name).str.contains("\n", literal=True),
        unknown: pl.lit(places.is_null()),
    }
    why = pl.coalesce(pl.when(is_bad).then(pl.lit(reason)) for reason, is_bad in reasons.items())
    return frame.select(why.alias("why")).to_series()


def refuse_unknown(files: FilesById, found: ReadById, what: str) -> NoReturn:
    """Refuse files of which no row could be used.

    Raises:
        InputError: shows an id of theirs and one of the log, or the commonest reason.
    """
    named = f"{files.setting}={masked(list(files.patterns))}"
    noun = "user" if files.id_name == USER_ID else ITEM
    if not found.rejects.num_read:
        raise InputError(f"The files of {named} have no row; name files with {what}s.")
    table, counts = found.rejects.table(), found.rejects.counts
    if counts[UNKNOWN_ID]:
        (row,) = table.filter(pc.equal(table[REASON], UNKNOWN_ID)).slice(0, 1).to_pylist()
        own = found.ids.example(np.ones(len(found.ids), dtype=np.bool_))
        raise InputError(
            f"Not one {noun} of the log has a {what} in {named}: {row[SOURCE]} has the id {row[VALUE]!r}, the log has "
            f"{own!r}; check that both spell ids alike, for example leading zeros, and "
            f"{files.column_setting.format(files.id_name)}."
        )
    reason, num = counts.most_common(1)[0]
    raise InputError(
        f"Not one of {found.rejects.num_read:,} rows of {named} has a {what}; the commonest reason is {reason!r} "
        f"({num:,} rows); check the files."
    )
