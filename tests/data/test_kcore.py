"""The k-core against a plain loop, and its report."""

import tracemalloc
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


def core_of(pairs, min_user, min_item, num_parts=1):
    """The core of (user, item) pairs, users 0..8, and the places of the pairs that are in it, by user."""
    pairs = sorted(enumerate(pairs), key=lambda entry: entry[1][0])
    users, items = (np.array([pair[side] for _, pair in pairs], dtype=np.int32) for side in (0, 1))
    lengths = np.bincount(users, minlength=9).astype(np.int32)
    parts, start = [], 0
    for own in np.array_split(lengths, num_parts):
        parts.append((own, items[start : start + own.sum()]))
        start += own.sum()
    core = k_core(parts, 10, min_user, min_item)
    stays = (np.concatenate(core.user_counts)[users] > 0) & (core.item_counts[items] > 0)
    return core, sorted(number for stay, (number, _) in zip(stays, pairs, strict=True) if stay)


@settings(deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=80),
    min_user=st.integers(1, 4),
    min_item=st.integers(1, 4),
    num_parts=st.integers(1, 4),
)
def test_equals_a_plain_loop(pairs, min_user, min_item, num_parts):
    expected = naive(pairs, min_user, min_item)
    if not expected:
        with pytest.raises(InputError):
            core_of(pairs, min_user, min_item, num_parts)
        return
    core, kept = core_of(pairs, min_user, min_item, num_parts)
    assert kept == expected
    assert core.rounds[-1]["interactions"] == len(expected)
    items = Counter(pairs[number][1] for number in expected)
    assert core.item_counts.tolist() == [items[item] for item in range(10)]


def test_an_interaction_takes_eight_bytes():
    num_users, per_user, num_parts = 1000, 20, 25

    def parts():
        for part in range(num_parts):
            items = np.arange(num_users * per_user, dtype=np.int32) % 500
            items[:per_user] = 500 + part  # every part loses a user
            yield np.full(num_users, per_user, np.int32), items

    tracemalloc.start()
    core = k_core(parts(), 500 + num_parts, 2, per_user + 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert core.rounds[-1]["users"] == num_parts * (num_users - 1)
    assert peak < 10 * num_parts * num_users * per_user


def test_reports_every_round():
    # Item 9 has one interaction; without it user 2 has one left, without user 2 item 1 has two left.
    core, kept = core_of([(0, 0), (0, 1), (1, 0), (1, 1), (2, 1), (2, 9)], 2, 2)
    assert kept == [0, 1, 2, 3]
    assert core.rounds == [
        {"users": 3, "items": 3, "interactions": 6},
        {"users": 3, "items": 2, "interactions": 5},
        {"users": 2, "items": 2, "interactions": 4},
    ]


def test_nothing_left_names_the_thresholds():
    with pytest.raises(InputError, match=r"data.min_user_interactions=2 and data.min_item_interactions=3; lower them"):
        core_of([(0, 0), (1, 1)], 2, 3)
