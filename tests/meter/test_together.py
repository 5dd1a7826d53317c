"""What training says about a sample, against counting one by one; held-out items count nowhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_texts import sequences_of

from sracl_dist.meter import together
from sracl_dist.meter.together import Categories, Common, items_of_both, users_of_both

HISTORIES = [[1, 2, 3, 4, 5, 6], [2, 3, 1, 6, 5], [4, 4, 2, 1]]
"""The last two items of each are held out: training is 1 2 3 4, 2 3 1, and 4 4."""


def table(common: Common, num_rows: int, size: int = 3) -> list[list[int]]:
    """All of it, a few rows at a time."""
    pieces = np.split(np.arange(num_rows), range(size, num_rows, size))
    return [own for rows in pieces for own in common.block(rows).tolist()]


def test_by_hand() -> None:
    sequences = sequences_of(HISTORIES, 6)
    of_items = users_of_both(sequences, np.array([1, 2, 4, 5]))
    found = np.array(table(of_items, 4))
    np.fill_diagonal(found, of_items.num_groups_N)
    assert found.tolist() == [[2, 2, 1, 0], [2, 2, 1, 0], [1, 1, 2, 0], [0, 0, 0, 0]]
    of_users = items_of_both(sequences, np.array([0, 1, 2]))
    assert table(of_users, 3) == [[4, 3, 1], [3, 3, 0], [1, 0, 1]]
    assert of_users.num_groups_N.tolist() == [4, 3, 1]


def test_what_a_text_shows_does_not_count() -> None:
    sequences = sequences_of(HISTORIES, 6)
    shown_to = {1: np.array([0]), 4: np.array([], np.int64)}
    of_items = users_of_both(sequences, np.array([1, 2, 4]), shown_to)
    assert of_items.num_groups_N.tolist() == [1, 2, 2]
    assert of_items.block(np.array([0]))[0, 1:].tolist() == [1, 0], "user 0 chose 1, 2 and 4, but 1 was shown that"
    of_users = items_of_both(sequences, np.array([0, 1, 2]), 1)
    assert of_users.num_groups_N.tolist() == [3, 2, 0], "4 is all that user 2 chose, twice"
    assert table(of_users, 3) == [[3, 2, 0], [2, 2, 0], [0, 0, 0]], "1 is the latest of user 1, so 2 and 3 are left"


@settings(max_examples=60, deadline=None)
@given(
    memberships=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=60),
    pairs_per_piece=st.sampled_from([1, 7, 1 << 22]),
    size=st.integers(1, 7),
)
def test_groups_are_counted_once(memberships: list[tuple[int, int]], pairs_per_piece: int, size: int) -> None:
    rows, groups = (np.array([pair[place] for pair in memberships], np.int64) for place in (0, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "PAIRS_PER_PIECE", pairs_per_piece)
        counts = table(Common(rows, groups, 7), 7, size)
    of_row = [{group for row, group in memberships if row == own} for own in range(7)]
    assert counts == [[len(a & b) for b in of_row] for a in of_row]


@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(1, 8), min_size=2, max_size=9), min_size=1, max_size=8),
    num_shown=st.integers(0, 4),
    data=st.data(),
)
def test_of_all_users_and_items(histories: list[list[int]], num_shown: int, data: st.DataObject) -> None:
    sequences = sequences_of(histories, 8)
    training = [history[:-2] for history in histories]
    items, users = [1, 3, 4, 8], np.arange(len(histories))
    who = st.lists(st.integers(0, len(histories) - 1), max_size=3)
    shown_to = {item: np.array(data.draw(who), np.int64) for item in items}
    have = {item: {u for u, own in enumerate(training) if item in own and u not in shown_to[item]} for item in items}
    of_items = users_of_both(sequences, np.array(items), shown_to)
    found = np.array(table(of_items, 4))
    np.fill_diagonal(found, of_items.num_groups_N)
    assert found.tolist() == [[len(have[a] & have[b]) for b in items] for a in items]
    left = [set(own) - set(own[len(own) - num_shown :] if num_shown < len(own) else own) for own in training]
    left = [set(own) if not num_shown else kept for own, kept in zip(training, left, strict=True)]
    assert table(items_of_both(sequences, users, num_shown), len(users)) == [[len(a & b) for b in left] for a in left]


def test_the_narrowest_category_that_another_lists_too() -> None:
    categories = [["Beauty", "Nails", "Lacquer"], ["Beauty", "Nails"], ["Beauty", "Hair"], [], ["Tools"]]
    found = Categories(categories)
    same, has = np.concatenate([found.block(np.arange(2)), found.block(np.arange(2, 5))]), found.has_one_N
    assert has.tolist() == [True, True, True, False, False]
    assert np.flatnonzero(same[0]).tolist() == [0, 1], "nobody else lists Lacquer, so Nails counts"
    assert np.flatnonzero(same[2]).tolist() == [0, 1, 2], "Hair is its own alone, so Beauty counts"
    assert not same[3:].any()
