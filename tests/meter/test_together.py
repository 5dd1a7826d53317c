"""What training says about a sample, against counting one by one; held-out items count nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_texts import sequences_of

from sracl_dist.meter import together
from sracl_dist.meter.together import in_common, items_of_both, same_narrowest_category, users_of_both

HISTORIES = [[1, 2, 3, 4, 5, 6], [2, 3, 1, 6, 5], [4, 4, 2, 1]]
"""The last two items of each are held out: training is 1 2 3 4, 2 3 1, and 4 4."""


def test_by_hand() -> None:
    sequences = sequences_of(HISTORIES, 6)
    items = np.array([1, 2, 4, 5])
    assert users_of_both(sequences, items).tolist() == [[2, 2, 1, 0], [2, 2, 1, 0], [1, 1, 2, 0], [0, 0, 0, 0]]
    assert items_of_both(sequences, np.array([0, 1, 2])).tolist() == [[4, 3, 1], [3, 3, 0], [1, 0, 1]]


@settings(max_examples=60, deadline=None)
@given(
    memberships=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=60),
    pairs_per_piece=st.sampled_from([1, 7, 1 << 22]),
)
def test_in_common_counts_groups_once(memberships: list[tuple[int, int]], pairs_per_piece: int) -> None:
    rows, groups = (np.array([pair[place] for pair in memberships], np.int64) for place in (0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "PAIRS_PER_PIECE", pairs_per_piece)
        counts = in_common(rows, groups, 7)
    of_row = [{group for row, group in memberships if row == own} for own in range(7)]
    assert counts.tolist() == [[len(a & b) for b in of_row] for a in of_row]


@settings(max_examples=30, deadline=None)
@given(histories=st.lists(st.lists(st.integers(1, 8), min_size=2, max_size=9), min_size=1, max_size=8))
def test_of_all_users_and_items(histories: list[list[int]]) -> None:
    sequences = sequences_of(histories, 8)
    training = [set(history[:-2]) for history in histories]
    items, users = np.array([1, 3, 4, 8]), np.arange(len(histories))
    expected = [[sum({a, b} <= own for own in training) for b in items.tolist()] for a in items.tolist()]
    assert users_of_both(sequences, items).tolist() == expected
    assert items_of_both(sequences, users).tolist() == [[len(a & b) for b in training] for a in training]


def test_the_narrowest_category_that_another_lists_too() -> None:
    categories = [["Beauty", "Nails", "Lacquer"], ["Beauty", "Nails"], ["Beauty", "Hair"], [], ["Tools"]]
    same, has = same_narrowest_category(categories)
    assert has.tolist() == [True, True, True, False, False]
    assert np.flatnonzero(same[0]).tolist() == [0, 1], "nobody else lists Lacquer, so Nails counts"
    assert np.flatnonzero(same[2]).tolist() == [0, 1, 2], "Hair is its own alone, so Beauty counts"
    assert not same[3:].any()
