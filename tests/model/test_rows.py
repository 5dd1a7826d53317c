import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.model.rows import SHORTEST_GROUP, Rows, latest_rows

LENGTHS = st.lists(st.integers(1, 40), max_size=30)


def numbered(lengths: list[int]) -> Rows:
    """Every item has a number of its own, from 1."""
    return Rows(items_T=torch.arange(1, sum(lengths) + 1), lengths_B=torch.tensor(lengths, dtype=torch.int64))


def as_lists(rows: Rows) -> list[list[int]]:
    lists, start = [], 0
    for length in rows.lengths_B.tolist():
        lists.append(rows.items_T[start : start + length].tolist())
        start += length
    assert start == len(rows.items_T)
    return lists


@settings(max_examples=150, deadline=None)
@given(LENGTHS)
def test_groups_hold_every_item_once_and_slots_lead_back(lengths: list[int]) -> None:
    rows = numbered(lengths)
    places, slot_T = rows.groups
    flat = torch.cat([torch.zeros(0, dtype=torch.int64), *(places_bL.flatten() for places_bL in places)])
    assert len(slot_T) == len(slot_T.unique()) == sum(lengths)
    assert flat[slot_T].tolist() == list(range(sum(lengths)))
    wanted = dict(zip(rows.starts_B.tolist(), lengths, strict=True))
    for places_bL in places:
        for row in places_bL.tolist():
            length = wanted.pop(row[0])
            assert row[:length] == list(range(row[0], row[0] + length))
            assert set(row[length:]) <= {row[length - 1]}
    assert not wanted


@settings(max_examples=100, deadline=None)
@given(LENGTHS)
def test_a_group_is_less_than_twice_as_wide_as_its_rows(lengths: list[int]) -> None:
    rows = numbered(lengths)
    for places_bL in rows.groups[0]:
        width = places_bL.shape[1]
        own = [lengths[rows.starts_B.tolist().index(first)] for first in places_bL[:, 0].tolist()]
        assert max(own) == width
        assert width <= SHORTEST_GROUP or min(own) > width // 2
    limits = [SHORTEST_GROUP * 2**power for power in range(5)]
    assert len(rows.groups[0]) == len({next(limit for limit in limits if length <= limit) for length in lengths})


@settings(max_examples=100, deadline=None)
@given(LENGTHS)
def test_places_of_first_and_last_items_and_positions(lengths: list[int]) -> None:
    rows = numbered(lengths)
    lists = as_lists(rows)
    assert len(rows) == len(lengths)
    assert rows.items_T[rows.starts_B].tolist() == [row[0] for row in lists]
    assert rows.items_T[rows.last_B].tolist() == [row[-1] for row in lists]
    assert rows.positions_T.tolist() == [place for row in lists for place in range(len(row))]


@settings(max_examples=100, deadline=None)
@given(st.data(), LENGTHS)
def test_selected_rows_are_those_asked_for_in_that_order(data: st.DataObject, lengths: list[int]) -> None:
    index = st.integers(0, max(0, len(lengths) - 1))
    wanted = data.draw(st.lists(index, max_size=12 if lengths else 0))
    rows = numbered(lengths)
    chosen = rows.select(torch.tensor(wanted, dtype=torch.int64))
    assert as_lists(chosen) == [as_lists(rows)[row] for row in wanted]


@settings(max_examples=60, deadline=None)
@given(st.lists(LENGTHS, min_size=1, max_size=4))
def test_concatenated_rows_follow_one_another(parts: list[list[int]]) -> None:
    rows = [numbered(lengths) for lengths in parts]
    assert as_lists(Rows.concatenate(rows)) == [row for part in rows for row in as_lists(part)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), max_size=8), st.integers(1, 7))
def test_latest_rows_keep_the_latest_items(histories: list[list[int]], max_length: int) -> None:
    rows = latest_rows([np.array(history, np.int32) for history in histories], max_length)
    assert as_lists(rows) == [history[-max_length:] for history in histories]
    assert rows.items_T.dtype == rows.lengths_B.dtype == torch.int64


def test_rows_with_other_items_keep_their_lengths() -> None:
    rows = numbered([2, 1])
    assert as_lists(rows.with_items(torch.tensor([7, 8, 9]))) == [[7, 8], [9]]


def test_no_rows_at_all() -> None:
    rows = latest_rows([], 5)
    places, slot_T = rows.groups
    assert len(rows) == len(rows.items_T) == len(rows.last_B) == len(rows.positions_T) == len(slot_T) == 0
    assert places == ()
    assert as_lists(Rows.concatenate([rows, numbered([3]), rows])) == [[1, 2, 3]]
    assert len(numbered([2]).select(torch.zeros(0, dtype=torch.int64))) == 0
