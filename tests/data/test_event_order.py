"""The order of events and the limit of a user's, against plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.data.event_order import beyond_limit, in_time_order

events = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)), max_size=40)


def columns(rows):
    users, items, times = (np.array([row[side] for row in rows], np.int64) for side in range(3))
    return users.astype(np.int32), items.astype(np.int32), times


@settings(deadline=None)
@given(rows=events, scale=st.sampled_from([1, 10**9, 2**59]))
def test_order_is_by_user_time_and_arrival(rows, scale):
    users, _, times = columns(rows)
    expected = sorted(range(len(rows)), key=lambda row: (rows[row][0], rows[row][2]))
    assert in_time_order(users, times * scale).tolist() == expected
    assert in_time_order(users, None).tolist() == sorted(range(len(rows)), key=lambda row: rows[row][0])


@settings(deadline=None)
@given(rows=events, limit=st.integers(1, 4))
def test_the_latest_different_events_stay_with_their_repeats(rows, limit):
    stays = {}
    for user in range(4):
        stays[user] = sorted({(time, item) for owner, item, time in rows if owner == user})[-limit:]
    users, items, times = columns(rows)
    expected = [(time, item) not in stays[user] for user, item, time in rows]
    assert beyond_limit(users, items, times, limit).tolist() == expected


@settings(deadline=None)
@given(rows=events, limit=st.integers(1, 4), cut=st.integers(0, 40))
def test_leaving_out_early_in_parts_changes_nothing(rows, limit, cut):
    users, items, times = columns(rows)
    gone = np.zeros(len(rows), dtype=np.bool_)
    for part in (slice(0, cut), slice(cut, None)):
        gone[part] = beyond_limit(users[part], items[part], times[part], limit)
    left = np.flatnonzero(~gone)
    gone[left[beyond_limit(users[left], items[left], times[left], limit)]] = True
    assert gone.tolist() == beyond_limit(users, items, times, limit).tolist()


def test_without_times_the_last_to_arrive_stay():
    users = np.array([0, 1, 0, 0, 1], np.int32)
    assert beyond_limit(users, users, None, 2).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("limit", [1, 5])
def test_no_events(limit):
    nothing = np.zeros(0, np.int32)
    assert not len(beyond_limit(nothing, nothing, None, limit))
