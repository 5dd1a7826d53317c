"""Times of a log: every type and spelling, with their digits and in their order; other decimals; shown to people."""

import datetime
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sracl_dist.data.rejects import MISSING_TIME, MIXED_TIME, NEGATIVE_TIME, WRONG_TIME
from sracl_dist.data.times import TimeParser, common_decimals, rescaled, shown_range, unit_of
from sracl_dist.errors import InputError

SECOND = 1_389_657_600
NINE = 1_709_283_600  # 2024-03-01T09:00:00Z
LAST = 2**63 - 1


def parsed(values, *, dates=None):
    """Of each row the exact time or the reason to reject it, and the decimals."""
    found = TimeParser(dates=dates).parse(values if isinstance(values, pa.Array) else pa.array(values))
    times = [Fraction(value, 10**found.decimals) for value in found.values.tolist()]
    for reason, mask in found.reasons:
        assert not found.values[mask].any()
        times = [reason if bad else time for time, bad in zip(times, mask, strict=True)]
    return times, found.decimals


def wanted(times):
    """Reasons stay, numbers and texts of numbers are exact, and None is a missing time."""
    return [MISSING_TIME if t is None else t if " " in str(t) else Fraction(t) for t in times]


TEXTS = [
    (["5", "007", "1389657600", "+3", " 7 ", "-0"], [5, 7, SECOND, 3, 7, 0], 0),
    ([".5", "5.", "1.50", "25e-1", "1E3", "1.389e9"], ["0.5", 5, "1.5", "2.5", 1000, 1_389_000_000], 1),
    (["1.389657600400000095e+09", "0.1234567899"], ["1389657600.400000095", "0.123456789"], 9),
    (["0." + "0" * 50 + "1", "2e-300", "1.0", "2.000"], [0, 0, 1, 2], 0),
    (["1700000000000000001", "9223372036854775807"], [1_700_000_000_000_000_001, LAST], 0),
    (["1.5", "-2.25", "nan", "2024-01-01T00:00:00.125"], ["1.5", NEGATIVE_TIME, None, MIXED_TIME], 1),
    (["1", "", "  ", "nan", "NaN", "NaT", "null", "NULL", "None", r"\N", None], [1] + [None] * 10, 0),
    (["1", "-1e-12", "1969-12-31T23:59:59.9"], [1, NEGATIVE_TIME, MIXED_TIME], 0),
    (["1969-12-31T23:59:59.9"], [NEGATIVE_TIME], 0),
    (["1970-01-01T01:00:00+02:00", "0001-01-01", "1970-01-01"], [NEGATIVE_TIME, NEGATIVE_TIME, 0], 0),
    (["1389657600123.4567899", "5"], ["1389657600123.456789", 5], 6),  # int64 has no room for more
    # Of times that do not fit together, the smaller group is wrong, and at a tie the one with fewer decimals.
    (["1.5", "2.25", "9000000000000000000"], ["1.5", "2.25", WRONG_TIME], 2),
    (["1.57", "922337203685477579.9"], ["1.57", WRONG_TIME], 2),
    (["1700000000000000001", "1700000000000000002", "2.25"], [10**17 * 17 + 1, 10**17 * 17 + 2, WRONG_TIME], 0),
]
INTEGERS = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]
CLOCKS = [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"), pa.duration("ms")]
ZONES, UNITS = (None, "UTC", "Europe/Paris"), (("s", 0), ("ms", 3), ("us", 6), ("ns", 9))
STAMPS = [(decimals, pa.timestamp(unit, tz=zone)) for unit, decimals in UNITS for zone in ZONES]
FLOAT32, FLOAT64, STRINGS = pa.float32(), pa.float64(), [pa.large_string(), pa.string_view(), pa.binary()]
TYPES = [
    *(([5, None, 0], kind, [5, None, 0], 0) for kind in INTEGERS),
    *(([101, None], kind, [101, None], 0) for kind in CLOCKS),  # in their own unit
    *(([datetime.date(2024, 3, 1), None], kind, [NINE - 9 * 3600, None], 0) for kind in (pa.date32(), pa.date64())),
    *((["x", "1.5", "2"], kind, [WRONG_TIME, "1.5", 2], 1) for kind in STRINGS),
    *(([NINE * 10**d, None], kind, [NINE, None], 0) for d, kind in STAMPS),
    *(([LAST, 1], kind, [Fraction(LAST, 10**d), Fraction(1, 10**d)], d) for d, kind in STAMPS),
    *(([None], kind, [None], 0) for kind in (pa.null(), FLOAT64)),
    ([-1, -(2**63)], pa.int64(), [NEGATIVE_TIME] * 2, 0),
    ([-1, 0], pa.timestamp("ns"), [NEGATIVE_TIME, 0], 0),
    ([LAST, 2**63, 2**64 - 1], pa.uint64(), [LAST, WRONG_TIME, WRONG_TIME], 0),
    ([True], pa.bool_(), [WRONG_TIME], 0),
    ([1_389_657_600.4, 5.0, 1e15], FLOAT64, ["1389657600.4", 5, 10**15], 1),  # the shortest number that is it
    ([0.1, 1e-7, 1e-12], FLOAT64, ["0.1", "0.0000001", 0], 7),
    ([0.1, 1_389_657_728.0], FLOAT32, ["0.1", 1_389_657_728], 1),
    ([np.float16(0.5), np.float16(2)], pa.float16(), ["0.5", 2], 1),
    ([math.nan, 2.0**57 + 32], FLOAT64, [None, 2**57 + 32], 0),
    ([math.nan, None, math.inf, -math.inf], FLOAT64, [None] * 2 + [WRONG_TIME] * 2, 0),
    ([2.0**63, 1e300, -0.5, 2.5], FLOAT64, [WRONG_TIME, WRONG_TIME, NEGATIVE_TIME, "2.5"], 1),
    ([Decimal("1389657600.4"), None, Decimal("0.001")], pa.decimal128(20, 3), ["1389657600.4", None, "0.001"], 3),
    ([Decimal("1389657600.123456789")], pa.decimal256(50, 20), ["1389657600.123456789"], 9),
    ([Decimal(120_000)], pa.decimal128(5, -3), [120_000], 0),
    ([Decimal(2**63), Decimal(10**37), Decimal(1)], pa.decimal128(38, 0), [WRONG_TIME, WRONG_TIME, 1], 0),
    *((texts, pa.string(), times, decimals) for texts, times, decimals in TEXTS),
]


@pytest.mark.parametrize(("values", "kind", "times", "decimals"), TYPES)
def test_times_of_every_type_keep_their_digits(values, kind, times, decimals):
    array = pa.array(values, kind)
    assert parsed(array[:0]) == ([], 0)
    assert parsed(array) == parsed(pa.concat_arrays([array, array])[len(array) :]) == (wanted(times), decimals)
    if kind in (*INTEGERS, FLOAT64, pa.string()):
        assert parsed(array.dictionary_encode()) == (wanted(times), decimals)


DATES = {
    NINE: "2024-03-01T09:00:00|2024-03-01 09:00:00|2024-03-01T09:00|2024-03-01T09|2024-03-01T09:00:00Z|"
    "2024-03-01 09:00:00 UTC|2024-03-01 09:00:00 GMT|20240301T090000|2024/03/01 09:00:00",
    NINE - 9 * 3600: "2024-03-01|2024/03/01",
    NINE - 7200: "2024-03-01T09:00:00+02:00|2024-03-01 09:00:00.0 +02",
    NINE - 9000: "2024-03-01T09:00:00+0230",
    NINE + 1800: "2024-03-01T09:00:00-00:30|2024-03-01T07:30:00-02",
    NINE + Fraction(1, 4): "20240301T090000.25Z|2024-03-01 09:00:00.25 +00:00|2024-03-01T09:00:00,25",
    NINE + Fraction(123_456_789, 10**9): "2024-03-01T09:00:00.123456789|2024-03-01T09:00:00.1234567899",
    0: "1970-01-01T00:00:00",
    253_402_300_799: "9999-12-31T23:59:59Z",
}


@pytest.mark.parametrize(("text", "time"), [(text, time) for time, texts in DATES.items() for text in texts.split("|")])
def test_dates_as_text_are_seconds_alone_and_next_to_others(text, time):
    assert parsed([text])[0] == parsed([f"  {text} "])[0] == [time]
    for other in ("2024-02-30", "1600-01-01T00:00:00Z", "2024/01/01", "5"):
        assert parsed([text, other], dates=True)[0][0] == parsed([other, text], dates=True)[0][1] == time


NO_TIMES = (
    "inf|-inf|1e400|9223372036854775808|99999999999999999999|1e300|0x1F|0X1F|12:30|yesterday|--1|1,5|.|-|e5|1e|٣|true|"
    "1 2|na|1_000|2024,03|2024-13-01|2024-02-30|2023-02-29|2024-00-01|2024-01-00|2024-01-32|2024-1-1|2024-03-01T|"
    "2024-03-01T24:00:00|2024-03-01T09:60|2024-03-01T09:00:60|2024-03-01T09:00.5|2024-03-01T09:00:00+24:00|"
    "2024-03-01T09:00:00+02:60|2024-03-01T09:00:00.|2024-03-01Z|2024-03/01|20240301T9|20240301T09:00:00|"
    "2024-03-01 UTC 09:00:00|2024-03-01T09:00:00/05"
)


@pytest.mark.parametrize("text", ["1" * 30, *NO_TIMES.split("|")])
def test_texts_that_are_no_time(text):
    for others in ([], ["1"], ["2024-01-01"], ["2024-01-01T00:00:00Z"], ["1.5"]):
        assert parsed([*others, text])[0][-1] == parsed([text, *others])[0][0] == WRONG_TIME


def test_the_first_batch_decides_the_kind_of_times():
    parser = TimeParser()
    parser.parse(pa.array([None, "soon"]))
    assert parser.dates is None
    parser.parse(pa.array(["2024-01-01", "2024-01-02", "5"]))
    assert parser.dates is True
    assert dict(parser.parse(pa.array(["7", "2024-01-01"])).reasons)[MIXED_TIME].tolist() == [True, False]
    assert parsed(["7.5", "2024-01-01"], dates=False)[0] == [Fraction(15, 2), MIXED_TIME]


junk = st.lists(st.sampled_from(["", "x", "-1.5", "2024-01-01", "1e-30", "0." + "0" * 60 + "1", "٣"]), max_size=2)
small = st.decimals(0, 9_000_000_000, places=9)
spellings = st.sampled_from(["{:f}", "{:e}", "+{:f}", " {:f}\t", "{:.30e}"])


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(small, spellings), min_size=1, max_size=8), junk)
def test_numbers_keep_value_and_order(drawn, extra):
    texts = [spelling.format(number) for number, spelling in drawn]
    assert parsed([*texts, *extra], dates=False)[0][: len(drawn)] == [Fraction(number) for number, _ in drawn]


large = st.one_of(small, st.decimals(0, 2**62, places=9), st.floats(0, 2.0**62).map(repr).map(Decimal))


@settings(deadline=None, max_examples=300)
@given(st.lists(large, min_size=1, max_size=8), st.booleans())
@example([Decimal(2**62), Decimal("0.000000001")], False)
def test_usable_times_have_all_decimals_that_they_have_room_for(exact, as_floats):
    exact = [Decimal(repr(float(number))) for number in exact] if as_floats else exact
    times, decimals = parsed([float(number) for number in exact] if as_floats else [f"{each:f}" for each in exact])
    exact = [math.floor(float(each)) if as_floats and float(each).is_integer() else each for each in exact]
    own = [next(d for d in range(9, -1, -1) if not d or Fraction(each) * 10**d < 2**63) for each in exact]
    cut = [Fraction(math.floor(Fraction(each) * 10**d), 10**d) for each, d in zip(exact, own, strict=True)]
    needed = [next(d for d in range(10) if (time * 10**d).denominator == 1) for time in cut]
    fits = [[need <= d and time * 10**d < 2**63 for need, time in zip(needed, cut, strict=True)] for d in range(10)]
    assert [time if fit else WRONG_TIME for time, fit in zip(cut, fits[decimals], strict=True)] == times
    assert sum(fits[decimals]) == max(map(sum, fits)) > 0
    assert decimals >= max(need for need, fit in zip(needed, fits[decimals], strict=True) if fit)


offsets = st.sampled_from(["", "Z", "+00:00", " UTC", "+05:30", "-0330", "+14"])
moments = st.datetimes(datetime.datetime(1971, 1, 1), datetime.datetime(9999, 1, 1))
moments |= moments.map(lambda moment: moment.replace(microsecond=0))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(moments, offsets, st.sampled_from(" T")), min_size=1, max_size=8), junk)
def test_dates_keep_value_and_order(drawn, extra):
    texts = [moment.isoformat(between) + offset for moment, offset, between in drawn]
    exact = [datetime.datetime.fromisoformat(m.isoformat() + (o.replace(" UTC", "Z") or "Z")) for m, o, _ in drawn]
    since = [moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) for moment in exact]
    times = [Fraction(each // datetime.timedelta(microseconds=1), 10**6) for each in since]
    assert parsed([*texts, *extra], dates=True)[0][: len(texts)] == times


def test_rescaled_rounds_down_and_refuses_what_has_no_room():
    values = np.array([0, 1_500, 1_999, -1])
    assert rescaled(values, 3, 3) is values
    assert rescaled(values, 3, 0).tolist() == [0, 1, 1, -1]
    assert rescaled(np.array([], dtype=np.int64), 0, 9).tolist() == []
    with pytest.raises(OverflowError, match="9223372037"):
        rescaled(np.array([9_223_372_036, 9_223_372_037]), 0, 9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, LAST)), max_size=4))
@example([(0, 9_223_372_036), (9, 1)])
@example([(0, 9_223_372_037), (9, 1)])
def test_all_parts_fit_with_their_common_decimals_and_not_with_more(parts):
    wanted = common_decimals(parts)
    for decimals, value in parts:
        time = int(rescaled(np.array([value]), decimals, wanted)[0])
        assert Fraction(time, 10**wanted) <= Fraction(value, 10**decimals) < Fraction(time + 1, 10**wanted)
    assert wanted == max((d for d, _ in parts), default=0) or any(v * 10 ** (wanted + 1 - d) > LAST for d, v in parts)


def test_files_whose_times_have_no_room_next_to_each_other_are_refused(prepared, write):
    rows = {"one.csv": ["1.25", "2.5"], "two.csv": ["8000000000000000000", "9000000000000000000"]}
    texts = {name: "".join(f"u,i{time},{time}\n" for time in times) for name, times in rows.items()}
    names = [write(name, "user_id,item_id,timestamp\n" + text) for name, text in texts.items()]
    with pytest.raises(InputError, match="times with 2 decimals and a time as large as 9000000000000000000, which 64"):
        prepared(interactions=names)


def test_the_unit_of_a_number_by_its_size():
    sizes = (math.nan, 1e7, 1e8, 1e10, 1e11, 1e13, 1e14, 1e16, 1e17, 1e18)
    assert [unit_of(size) for size in sizes] == [None, None, "s", "s", "ms", "ms", "us", "us", "ns", "ns"]


GUESS = "1389657600 to 1405555200 (2014-01-14 to 2014-07-17 if these are seconds)"


@pytest.mark.parametrize(
    ("first", "last", "decimals", "dates", "shown"),
    [
        (SECOND, 1_405_555_200, 0, False, GUESS),
        (SECOND * 10 + 4, 14_055_552_000, 1, False, GUESS.replace("600 ", "600.4 ")),
        (1, 25, 0, False, "1 to 25"),
        (5, 25, 1, False, "0.5 to 2.5"),
        (0, LAST, 0, False, "0 to 9223372036854775807 (1970-01-01 to 2262-04-11 if these are nanoseconds)"),
        (NINE * 1000, NINE * 1000 + 250, 3, True, "2024-03-01T09:00:00 to 2024-03-01T09:00:00.25 UTC"),
    ],
)
def test_the_range_of_times_for_people(first, last, decimals, dates, shown):
    assert shown_range(first, last, decimals, dates) == shown
