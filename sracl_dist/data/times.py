"""Times of a log as int64 with their digits: numbers in their own unit, dates in seconds since 1970 in UTC.

A text is a number, or a date-time of ISO 8601 or one of its usual variants. Of digits behind the point 9 count.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.data.rejects import MISSING_TIME, MIXED_TIME, NEGATIVE_TIME, WRONG_TIME

Mask = NDArray[np.bool_]
Integers = NDArray[np.int64]

_MAX_DECIMALS = 9
_END = 2**63  # the first number that int64 cannot hold
NAME_OF_UNIT = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_PER_SECOND = {"ns": 10**9, "us": 10**6, "ms": 10**3, "s": 1}
_IS_WRONG, _IS_MISSING, _IS_NUMBER, _IS_DATE = np.arange(4, dtype=np.uint8)
_MISSING = r"(?i)^(?:|nan|nat|null|none|\\n)$"
_BELOW_ZERO = r"^-[0.]*[1-9]"
_COMPACT = r"^([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})"
_DATE = (
    r"^(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{4}/[0-9]{2}/[0-9]{2})(?:[ T](?P<hour>[01][0-9]|2[0-3])"
    r"(?::(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9])(?:\.(?P<fraction>[0-9]+))?)?)?"
    r"(?: ?(?:Z|(?P<sign>[+-])(?P<hour_ahead>[01][0-9]|2[0-3]):?(?P<minute_ahead>[0-5][0-9])?))?)?$"
)


@dataclass(frozen=True, kw_only=True)
class ParsedTimes:
    """Times of N rows."""

    values: Integers
    """[N] time * 10**decimals, 0 where a reason holds."""
    decimals: int
    """0 to 9, as few as the usable rows need. A row that alone needs more than int64 can hold is rounded down."""
    reasons: list[tuple[str, Mask]]
    """Each reason to reject a row, with the rows [N] that it holds for."""


@dataclass(kw_only=True)
class TimeParser:
    """Parses the times of one log, which must all be numbers or all be dates.

    The first batch with a usable time decides by majority. Numbers keep their unit. No time is before 0, or 1970.
    """

    dates: bool | None = None
    """Whether they are dates rather than numbers; None where that is not decided yet."""

    def parse(self, values: pa.Array) -> ParsedTimes:
        """Times of a batch, in any type of Arrow; clock times and durations are numbers, in their own unit.

        Where int64 cannot hold some times with the decimals of others, the smaller group is rejected.
        """
        whole, nanos, kinds = _exact_times(values)
        dates, numbers = kinds == _IS_DATE, kinds == _IS_NUMBER
        if self.dates is None and (dates.any() or numbers.any()):
            self.dates = bool(dates.sum() > numbers.sum())
        of_kind, others = (dates, numbers) if self.dates else (numbers, dates)
        usable = of_kind & (whole >= 0)
        if not usable.all():
            whole, nanos = np.where(usable, whole, 0), None if nanos is None else np.where(usable, nanos, 0)
        times, decimals, no_room = _scaled(whole, nanos)
        reasons = [(MISSING_TIME, kinds == _IS_MISSING), (WRONG_TIME, no_room | (kinds == _IS_WRONG))]
        reasons += [(MIXED_TIME, others), (NEGATIVE_TIME, of_kind & ~usable)]
        return ParsedTimes(values=times, decimals=decimals, reasons=reasons)


def rescaled(values: Integers, decimals: int, wanted: int) -> Integers:
    """Times with another number of decimals: exact where there are more of them, else rounded down.

    Raises:
        OverflowError: int64 cannot hold them.
    """
    if wanted <= decimals:
        return values if wanted == decimals else values // 10 ** (decimals - wanted)
    largest = max(int(values.max()), -int(values.min())) if len(values) else 0
    if common_decimals([(decimals, largest), (wanted, 0)]) < wanted:
        raise OverflowError(f"The time {largest} / 10**{decimals} has no room for {wanted} decimals in 64 bits.")
    return values * 10 ** (wanted - decimals)


def common_decimals(parts: Iterable[tuple[int, int]]) -> int:
    """The decimals that the times of all parts can have in int64: the largest of them where they fit, else fewer.

    Args:
        parts: of each, its decimals and the largest absolute value with these decimals.
    """
    known = list(parts)
    wanted = max((decimals for decimals, _ in known), default=0)
    while wanted and any(value * 10**wanted >= _END * 10**decimals for decimals, value in known):
        wanted -= 1
    return wanted


def unit_of(typical: float) -> str | None:
    """The unit of a number of this size, if it is a time since 1970 (from 1973 on); None for others, as positions."""
    return next((unit for unit, num in _PER_SECOND.items() if typical >= 1e8 * num), None)


def shown_range(first: int, last: int, decimals: int, dates: bool) -> str:
    """The first and the last time for people: dates in ISO 8601, and numbers with the dates that they may stand for."""
    texts = []
    for time in (first, last):
        whole, fraction = divmod(time, 10**decimals)
        digits = f".{fraction:0{decimals}d}".rstrip("0") if fraction else ""
        texts.append(f"{np.datetime64(whole, 's') if dates else whole}{digits}")
    shown = " to ".join(texts)
    unit = unit_of(last / 10**decimals)
    if dates or unit is None:
        return shown + (" UTC" if dates else "")
    days = (np.array([first, last]) // 10**decimals).astype(f"datetime64[{unit}]").astype("datetime64[D]")
    return f"{shown} ({days[0]} to {days[1]} if these are {NAME_OF_UNIT[unit]})"


def _scaled(whole: Integers, nanos: Integers | None) -> tuple[Integers, int, Mask]:
    """Times that are not negative as one integer each, their decimals, and which times are left out as 0."""
    if nanos is None or not nanos.any():
        return whole, 0, np.zeros(len(whole), dtype=np.bool_)
    room, needed = np.zeros(len(whole), dtype=np.int8), (nanos != 0).astype(np.int8)
    for decimals in range(1, _MAX_DECIMALS + 1):
        largest, digits = divmod(_END - 1, 10**decimals)
        step = 10 ** (_MAX_DECIMALS - decimals)
        room += (whole < largest) | ((whole == largest) & (nanos < (digits + 1) * step))
        has_more = nanos // step * step != nanos
        needed += has_more
        if not has_more.any():
            break
    needed = np.minimum(needed, room)
    decimals = min(np.unique(needed)[::-1].tolist(), key=lambda each: int(((needed > each) | (room < each)).sum()))
    no_room = (needed > decimals) | (room < decimals)
    return np.where(no_room, 0, whole * 10**decimals + nanos // 10 ** (9 - decimals)), decimals, no_room


def _exact_times(values: pa.Array) -> tuple[Integers, Integers | None, NDArray[np.uint8]]:
    """Whole numbers, the billionths on top of them (None where there are none), and what each row is."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _exact_times(values.dictionary_decode())
    if pa.types.is_date(kind):
        return _exact_times(values.cast(pa.timestamp("s" if pa.types.is_date32(kind) else "ms")))
    if pa.types.is_timestamp(kind):
        return *_seconds(values), np.where(values.is_null(), _IS_MISSING, _IS_DATE)
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        values = values.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    if kind in (pa.bool_(), pa.float16()) or not (pa.types.is_primitive(kind) or pa.types.is_decimal(kind)):
        values = values.cast(pa.string())
    # Arrow would read 0x1F, too. Texts that are all plain integers are the usual case, and much faster.
    largest_byte = np.frombuffer(values.buffers()[-1] or b"", np.uint8).max(initial=0)
    integers = None if pa.types.is_string(values.type) and largest_byte > ord("9") else _cast(values, pa.int64())
    if integers is None:
        texts = values.cast(pa.string())
        if pa.types.is_floating(values.type):  # the shortest number that is read as it, but an integer keeps its digits
            is_whole = pc.and_(pc.equal(values, pc.floor(values)), pc.less(pc.abs(values), float(_END)))
            texts = pc.if_else(is_whole, values.cast(pa.int64(), safe=False).cast(pa.string()), texts)
        return _texts(pl.Series(texts, dtype=pl.String).fill_null("").str.strip_chars())
    return integers.fill_null(0).to_numpy(), None, np.where(integers.is_null(), _IS_MISSING, _IS_NUMBER)


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """None where a value is of another kind; each of these costs time, so the first value goes ahead of the others."""
    try:
        values[:1].cast(kind)
        return values.cast(kind)
    except pa.ArrowInvalid:
        return None


def _seconds(stamps: pa.Array) -> tuple[Integers, Integers]:
    """Whole seconds since 1970, and nanos."""
    num = _PER_SECOND[stamps.type.unit]
    values = stamps.view(pa.int64()).fill_null(0).to_numpy()
    whole = values // num
    return whole, (values - whole * num) * (10**9 // num)


def _texts(texts: pl.Series) -> tuple[Integers, Integers, NDArray[np.uint8]]:
    # An integer of int64 has up to 19 digits; 18 more are enough to round down after the 9th.
    exact, units = texts.cast(pl.Decimal(38, 18), strict=False).to_physical().to_frame("units"), pl.col("units")
    found = exact.select((units // 10**18).cast(pl.Int64, strict=False), nanos=(units % 10**18 // 10**9).cast(pl.Int64))
    whole, nanos = (column.fill_null(0).to_numpy().copy() for column in found)
    is_number = found["units"].is_not_null().to_numpy()
    whole[is_number & (whole == 0) & texts.str.contains(_BELOW_ZERO).to_numpy()] = -1  # such as -1e-30
    kinds = np.where(is_number, _IS_NUMBER, np.where(texts.str.contains(_MISSING).to_numpy(), _IS_MISSING, _IS_WRONG))
    others = kinds == _IS_WRONG
    if others.any():
        whole[others], nanos[others], kinds[others] = _dates(texts.filter(others))
    return whole, nanos, kinds


def _dates(texts: pl.Series) -> tuple[Integers, Integers, NDArray[np.uint8]]:
    """Whole seconds since 1970, nanos, and which texts are dates; those without an offset are taken as UTC."""
    texts = texts.str.replace(" UTC| GMT", "Z").str.replace(",", ".", literal=True)
    plain = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    for kind in (pa.timestamp("ns"), pa.timestamp("ns", tz="UTC")):  # Arrow reads texts with offsets, or without
        stamps = _cast(plain, kind)
        if stamps is not None:
            return *_seconds(stamps), np.full(len(texts), _IS_DATE)
    parts = texts.str.replace(_COMPACT, r"$1-$2-${3}T$4:$5:$6").str.extract_groups(_DATE).struct.unnest()
    day = pl.col("day").str.replace_all("/", "-").str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    ahead = (pl.col.hour_ahead * 60 + pl.col.minute_ahead) * pl.when(sign="-").then(-60).otherwise(60)
    found = parts.with_columns(pl.exclude("day", "sign", "fraction").cast(pl.Int64).fill_null(0)).select(
        whole=day * 86_400 + (pl.col.hour * 60 + pl.col.minute) * 60 + pl.col.second - ahead,
        nanos=pl.col("fraction").fill_null("").str.pad_end(9, "0").str.head(9).cast(pl.Int64),
    )
    is_date = found["whole"].is_not_null().to_numpy()
    return found["whole"].fill_null(0).to_numpy(), found["nanos"].to_numpy(), np.where(is_date, _IS_DATE, _IS_WRONG)
