"""Times of a log as int64: numbers as they are, dates as milliseconds since 1970 in UTC."""

import datetime
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.data.rejects import MISSING_TIME, MIXED_TIME, NEGATIVE_TIME, WRONG_TIME

_INTEGER = r"^[+-]?[0-9]{1,18}$"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"  # Python would also take a long row of digits for a date
_LARGEST = 2**63
_DIGITS_OF_LARGEST = 19


class TimeParser:
    """Parses the times of one log, which must all be numbers or all be dates.

    The first batch with a usable time decides by majority; numbers keep their unit, fractions are cut off.
    """

    def __init__(self, *, dates: bool | None = None) -> None:
        """Parse times of a log.

        Args:
            dates: whether they are dates rather than numbers, where that was decided before.
        """
        self.dates = dates

    def parse(self, values: pa.Array) -> tuple[NDArray[np.int64], list[tuple[str, NDArray[np.bool_]]]]:
        """Times, and for each reason to reject a row the rows it holds for; rejected rows have any time."""
        missing = pc.is_null(values).to_numpy(zero_copy_only=False)
        if pa.types.is_temporal(values.type):
            times, is_date, is_number = _milliseconds(values), ~missing, np.zeros_like(missing)
        elif pa.types.is_integer(values.type):
            times = values.cast(pa.int64()).fill_null(0).to_numpy()
            is_date, is_number = np.zeros_like(missing), ~missing
        else:
            times, is_date, is_number, missing = _parse_texts(values)
        if self.dates is None and (is_date.any() or is_number.any()):
            self.dates = bool(is_date.sum() > is_number.sum())
        of_kind = is_date if self.dates else is_number
        return times, [
            (MISSING_TIME, missing),
            (WRONG_TIME, ~(missing | is_date | is_number)),
            (MIXED_TIME, (is_date | is_number) & ~of_kind),
            (NEGATIVE_TIME, of_kind & (times < 0)),
        ]


def _milliseconds(values: pa.Array) -> NDArray[np.int64]:
    if pa.types.is_time(values.type) or pa.types.is_duration(values.type):
        return np.asarray(values.cast(pa.int64(), safe=False).fill_null(0).to_numpy(), dtype=np.int64)
    zone = getattr(values.type, "tz", None)
    stamps = values.cast(pa.timestamp("ms", tz=zone), safe=False)
    return np.asarray(stamps.cast(pa.int64()).fill_null(0).to_numpy(), dtype=np.int64)


def _parse_texts(
    texts: pa.Array,
) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Times, is a date, is a number, is missing."""
    try:  # every row a plain integer: the usual case, and many times faster
        numbers = texts.cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    else:
        missing = pc.is_null(numbers).to_numpy(zero_copy_only=False)
        return numbers.fill_null(0).to_numpy(), np.zeros_like(missing), ~missing, missing
    texts = pc.utf8_trim_whitespace(texts.fill_null(""))
    missing = _mask(pc.equal(texts, ""))
    times = np.zeros(len(texts), dtype=np.int64)
    is_integer = _mask(pc.match_substring_regex(texts, _INTEGER))
    times[is_integer] = pc.utf8_ltrim(texts.filter(pa.array(is_integer)), "+").cast(pa.int64()).to_numpy()
    is_other = _mask(pc.match_substring_regex(texts, _NUMBER)) & ~is_integer
    wholes = [_whole(text) for text in texts.filter(pa.array(is_other)).to_pylist()]
    is_other[is_other] = [whole is not None for whole in wholes]
    times[is_other] = [whole for whole in wholes if whole is not None]
    is_number = is_integer | is_other
    is_date = _mask(pc.match_substring_regex(texts, _DATE))
    parsed = _parse_dates(texts.filter(pa.array(is_date)))
    usable = ~np.isnan(parsed)
    is_date[is_date] = usable
    times[is_date] = parsed[usable].astype(np.int64)
    return times, is_date, is_number, missing


def _whole(text: str) -> int | None:
    """A number without its fraction; None where it does not fit. Nanoseconds have more digits than a float."""
    digits = text.lstrip("+-")
    if digits.isdecimal() and len(digits) <= _DIGITS_OF_LARGEST:
        whole = int(text)
    elif abs(number := float(text)) < _LARGEST:
        whole = math.floor(number)
    else:
        return None
    return whole if abs(whole) < _LARGEST else None


def _parse_dates(texts: pa.Array) -> NDArray[np.float64]:
    """Milliseconds since 1970, NaN where the text is no ISO date-time; without an offset it is taken as UTC."""
    for zone in (None, "UTC"):  # Arrow wants to know whether the texts have offsets
        try:
            stamps = texts.cast(pa.timestamp("ms", tz=zone))
        except pa.ArrowInvalid:
            continue
        return np.asarray(stamps.cast(pa.int64()).to_numpy(), dtype=np.float64)
    return np.array([_parse_date(text) for text in texts.to_pylist()], dtype=np.float64)


def _parse_date(text: str) -> float:
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return float(round(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        return float("nan")


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.bool_)
