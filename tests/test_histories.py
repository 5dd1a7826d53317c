import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import make_sequences

from sracl_dist.histories import Histories

drawn = st.lists(st.lists(st.integers(1, 9), max_size=6), max_size=6)


def as_lists(histories: Histories) -> list[list[int]]:
    return [history.tolist() for history in histories]


@given(drawn, st.integers(1, 7), st.integers(-7, 7) | st.none(), st.integers(-7, 7) | st.none())
def test_it_is_the_sequence_that_it_was_made_from(
    plain: list[list[int]], max_length: int, start: int | None, stop: int | None
) -> None:
    histories = Histories.of([np.array(history, np.int32) for history in plain])
    assert as_lists(histories) == plain
    assert len(histories) == len(plain)
    assert histories.lengths_B.tolist() == [len(history) for history in plain]
    assert as_lists(histories[start:stop]) == plain[start:stop]
    assert as_lists(histories[start:stop].latest(max_length)) == [own[-max_length:] for own in plain[start:stop]]
    assert Histories.of(histories) is histories
    if plain:
        assert histories[-1].tolist() == plain[-1]
    with pytest.raises(IndexError):
        histories[len(plain)]


def test_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="step 2; use 1"):
        Histories.of([])[::2]


@pytest.mark.parametrize("users", [[], [3], [39, 0, 7, 7]])
def test_histories_of_many_users_equal_those_of_one(users: list[int]) -> None:
    sequences, many = make_sequences(40), np.array(users, np.int64)
    assert as_lists(sequences.histories(many)) == [sequences.whole(user).tolist() for user in users]
    for split in ("validation", "test"):
        expected = [sequences.context(user, split).tolist() for user in users]
        assert as_lists(sequences.contexts(many, split)) == expected
