"""The oracle of prepare's tests, on cases worked out by hand."""

from fractions import Fraction

import pytest
from oracle import KEPT, LOW_RATING, OTHER_EVENT, OVER_LIMIT, exact_time, judge

from sracl_dist.data import rejects


def row(user="u", item="i", time="5", event="cart", rating="4", damage=None):
    return {"user": user, "item": item, "time": time, "event": event, "rating": rating, "damage": damage}


def test_each_row_has_the_first_reason_that_holds():
    rows = [
        (row(), KEPT),
        (row(damage=rejects.WRONG_FIELDS), rejects.WRONG_FIELDS),
        (row(user="", event="view", damage=rejects.INVALID_UTF8), OTHER_EVENT),
        (row(user="", damage=rejects.INVALID_UTF8), rejects.INVALID_UTF8),
        (row(user=" ", item=None), rejects.EMPTY_USER),
        (row(item="\t", time=None), rejects.EMPTY_ITEM),
        (row(time="NaN", rating="x"), rejects.MISSING_TIME),
        (row(time="2024-02-30"), rejects.WRONG_TIME),
        (row(time="2024-02-29"), rejects.MIXED_TIME),
        (row(time="-1e-3", rating="x"), rejects.NEGATIVE_TIME),
        (row(rating=None), rejects.WRONG_RATING),
        (row(rating="2.5"), LOW_RATING),
        (row(time="5.0"), rejects.DUPLICATE),
        (row(event=None), OTHER_EVENT),
        (row(time="5.5"), KEPT),
    ]
    assert judge([each for each, _ in rows], events=["cart"], min_rating=3).outcomes == [why for _, why in rows]


def test_sequences_are_in_order_of_time_and_ties_in_that_of_the_file():
    rows = [row(item=item, time=time) for item, time in (("a", "2"), ("b", "1.5"), ("c", "2"), ("a", "2.0"))]
    rows.insert(0, row("v", "c", "9"))
    judged = judge(rows)
    assert judged.sequences() == {"v": [("c", 9)], "u": [("b", Fraction(3, 2)), ("a", 2), ("c", 2)]}
    assert judged.outcomes[-1] == rejects.DUPLICATE


def test_the_limit_takes_the_latest_and_of_ties_the_item_that_came_later():
    rows = [row(item="a", time="2"), row(item="b", time="2"), row("v", "b", "1"), row(item="a", time="2")]
    assert judge(rows, limit=1).outcomes == [OVER_LIMIT, KEPT, KEPT, rejects.DUPLICATE]


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1.3896576004e9", (False, Fraction(13_896_576_004, 10))),
        ("0.1234567899", (False, Fraction(123_456_789, 10**9))),
        ("2024-03-01 11:00:00.5 0200", None),
        ("2024-03-01 11:00:00.5 +02", (True, Fraction(3_418_567_201, 2))),
        ("2024-03-01T11:00:00.5+0200", (True, Fraction(3_418_567_201, 2))),
        ("9223372036854775808", None),
    ],
)
def test_exact_times(text, time):
    assert exact_time(text) == time
