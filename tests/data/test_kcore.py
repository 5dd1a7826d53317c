"""The k-core against a plain loop, and its report."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.data.kcore import k_core
from sracl_dist.errors import InputError


def naive(pairs, min_user, min_item):
    rows = list(enumerate(pairs))
    while True:
        users = Counter(user for _, (user, _) in rows)
        items = Counter(item for _, (_, item) in rows)
        kept = [row for row in rows if users[row[1][0]] >= min_user and items[row[1][1]] >= min_item]
        if kept == rows:
            return [number for number, _ in rows]
        rows = kept


@settings(deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=80),
    min_user=st.integers(1, 4),
    min_item=st.integers(1, 4),
)
def test_equals_a_plain_loop(pairs, min_user, min_item):
    users, items = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    expected = naive(pairs, min_user, min_item)
    if not expected:
        with pytest.raises(InputError):
            k_core(users, items, min_user, min_item)
        return
    kept, rounds = k_core(users, items, min_user, min_item)
    assert kept.tolist() == expected
    assert rounds[-1]["interactions"] == len(expected)


def test_reports_every_round():
    # Item 9 has one interaction; without it user 2 has one left, without user 2 item 1 has two left.
    users = np.array([0, 0, 1, 1, 2, 2], dtype=np.int32)
    items = np.array([0, 1, 0, 1, 1, 9], dtype=np.int32)
    kept, rounds = k_core(users, items, 2, 2)
    assert kept.tolist() == [0, 1, 2, 3]
    assert rounds == [
        {"users": 3, "items": 3, "interactions": 6},
        {"users": 3, "items": 2, "interactions": 5},
        {"users": 2, "items": 2, "interactions": 4},
    ]


def test_nothing_left_names_the_thresholds():
    pair = np.array([0, 1], dtype=np.int32)
    with pytest.raises(InputError, match=r"data.min_user_interactions=2 and data.min_item_interactions=3; lower them"):
        k_core(pair, pair, 2, 3)
