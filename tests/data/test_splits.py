"""Both splits by hand and against plain loops."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sracl_dist.data.splits import global_time, leave_last_out, time_cuts
from sracl_dist.errors import InputError


def test_leave_last_out_by_hand():
    split = leave_last_out(np.array([1, 2, 3, 7]))
    assert split.num_train.tolist() == [1, 2, 1, 5]
    assert split.num_validation.tolist() == [0, 0, 1, 1]
    assert split.details == {"method": "leave_last_out", "users_not_evaluated": 2}


def test_global_time_by_hand():
    # Ten events at times 1..10: validation begins at 7 (two events), test at 9 (two events).
    lengths = np.array([4, 3, 3])
    times = np.array([1, 2, 7, 9, 3, 4, 5, 6, 8, 10])
    split = global_time(lengths, times, time_cuts(times.copy(), 0.2, 0.2))
    assert (split.details["start_validation"], split.details["start_test"]) == (7, 9)
    assert split.num_train.tolist() == [2, 3, 1]
    assert split.num_validation.tolist() == [1, 0, 1]
    assert split.details["users_not_evaluated"] == 1


histories = st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8).map(sorted), min_size=1, max_size=12)


@settings(deadline=None)
@given(histories=histories, shares=st.tuples(st.floats(0.05, 0.45), st.floats(0.05, 0.45)))
def test_global_time_never_trains_on_the_future(histories, shares):
    lengths = np.array([len(history) for history in histories])
    times = np.concatenate(histories)
    try:
        split = global_time(lengths, times, time_cuts(times.copy(), *shares))
    except InputError:
        assume(False)
    first, second = split.details["start_validation"], split.details["start_test"]
    for user, history in enumerate(histories):
        assert split.num_train[user] == sum(time < first for time in history)
        assert split.num_validation[user] == sum(first <= time < second for time in history)
    assert np.sum(times >= second) >= max(round(len(times) * shares[1]), 1)
    assert split.num_train.sum() > 0


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_leave_last_out_holds_out_two_of_everybody_long_enough(lengths):
    split = leave_last_out(np.array(lengths))
    for user, length in enumerate(lengths):
        held_out = length - split.num_train[user]
        assert held_out == (2 if length >= 3 else 0)
        assert split.num_validation[user] == (1 if length >= 3 else 0)


@pytest.mark.parametrize("times", [[5, 5, 5, 5], [1, 1, 1, 9], [1, 9]])
def test_too_few_times_are_an_error(times):
    with pytest.raises(InputError, match="global_time"):
        time_cuts(np.array(times), 0.3, 0.3)
