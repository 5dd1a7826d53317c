"""Rows of the log that can be used, and for every other one the reason why it cannot."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import pyarrow as pa

from sracl_dist.columns import EVENT, ITEM_ID, RATING, ROW, TIME, USER_ID
from sracl_dist.config.sections import LogColumns
from sracl_dist.data.rejects import BROKEN_ID, EMPTY_ITEM, EMPTY_USER, INVALID_UTF8, WRONG_RATING, Rejects
from sracl_dist.data.rows import INVALID, Rows
from sracl_dist.data.times import TimeParser

NO_ID = ("", "nan", "NaN", "null", "NULL", "None", "NaT", "<NA>", "\\N")
"""What programs write for an id that is missing."""
_WHY, _IS_OTHER, _IS_LOW = "why", "is_other", "is_low"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which rows of the log are interactions."""

    events: Sequence[str] = ()
    """Kinds of event that count; none takes all."""
    min_rating: float | None = None
    """Lowest rating that counts; None takes all."""

    def columns(self, names: LogColumns) -> dict[str, str]:
        """The file's column name by the pipeline's, for those that are read."""
        wanted = {USER_ID: names.user_id, ITEM_ID: names.item_id}
        if names.time is not None:
            wanted[TIME] = names.time
        if self.events and names.event is not None:
            wanted[EVENT] = names.event
        if self.min_rating is not None and names.rating is not None:
            wanted[RATING] = names.rating
        return wanted


@dataclass(frozen=True, kw_only=True)
class UsableRows:
    """Rows of a batch that can be used."""

    frame: pl.DataFrame
    """USER_ID, ITEM_ID, TIME where there are times, and ROW, the number of the row in its file."""
    decimals: int
    """Of the times; see ParsedTimes."""
    num_other_events: int
    """Rows left out because of data.events."""
    num_below_rating: int
    """Rows left out because of data.min_rating."""


def usable_rows(rows: Rows, parser: TimeParser, wanted: Wanted, source: str, rejects: Rejects) -> UsableRows:
    """Take the interactions of a batch that can be used; broken ones go to `rejects`.

    A row of another kind of event is left out whatever else it holds; a row with a low rating only if it is not broken.

    Args:
        rows: the batch.
        parser: knows the kind of the log's times.
        wanted: which rows are interactions.
        source: name of the file.
        rejects: takes the rows that cannot be used.
    """
    columns = rows.columns
    frame = pl.DataFrame({name: pl.from_arrow(values) for name, values in columns.items() if name != TIME})
    checks = _checks(columns)
    decimals = 0
    if TIME in columns:
        times = parser.parse(columns[TIME])
        checks += [(TIME, reason, pl.lit(pl.Series(mask))) for reason, mask in times.reasons if mask.any()]
        frame, decimals = frame.with_columns(pl.Series(TIME, times.values)), times.decimals
    if RATING in columns:
        rating = pl.col(RATING).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
        checks.append((RATING, WRONG_RATING, ~rating.is_finite().fill_null(value=False)))
        is_low = (rating < wanted.min_rating).fill_null(value=False)
    else:
        is_low = pl.lit(value=False)
    is_other = ~pl.col(EVENT).is_in(list(wanted.events)).fill_null(value=False) if EVENT in columns else pl.lit(False)
    why = pl.coalesce(*(pl.when(is_bad).then(place) for place, (_, _, is_bad) in enumerate(checks)))
    frame = frame.with_columns(pl.Series(ROW, rows.numbers), why.alias(_WHY), is_other.alias(_IS_OTHER))
    kinds = frame.select(_WHY, _IS_OTHER, (is_low & pl.col(_WHY).is_null() & ~pl.col(_IS_OTHER)).alias(_IS_LOW))
    for place in kinds.filter(~pl.col(_IS_OTHER))[_WHY].drop_nulls().unique().sort().to_list():
        name, reason, _ = checks[place]
        bad = kinds.select(((pl.col(_WHY) == place) & ~pl.col(_IS_OTHER)).fill_null(value=False)).to_series()
        rejects.add(source, rows.numbers[bad.to_numpy()], reason, columns[name].filter(bad.to_arrow()))
    keep = kinds[_WHY].is_null() & ~kinds[_IS_OTHER] & ~kinds[_IS_LOW]
    return UsableRows(
        frame=frame.select(*(name for name in (USER_ID, ITEM_ID, TIME, ROW) if name in frame.columns)).filter(keep),
        decimals=decimals,
        num_other_events=int(kinds[_IS_OTHER].sum()),
        num_below_rating=int(kinds[_IS_LOW].sum()),
    )


def _checks(columns: dict[str, pa.Array]) -> list[tuple[str, str, pl.Expr]]:
    """Column, reason, and which rows the column's text makes unusable, in the order in which a row is told of them."""
    texts = {name: pl.lit(pl.from_arrow(own)) for name, own in columns.items() if pa.types.is_string(own.type)}
    checks = [(name, INVALID_UTF8, text.str.contains(INVALID, literal=True)) for name, text in texts.items()]
    for name, reason in ((USER_ID, EMPTY_USER), (ITEM_ID, EMPTY_ITEM)):
        checks.append((name, reason, pl.col(name).fill_null("").str.strip_chars().is_in(NO_ID)))
    return [*checks, *((name, BROKEN_ID, pl.col(name).str.contains("\n", literal=True)) for name in (USER_ID, ITEM_ID))]
