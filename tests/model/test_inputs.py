from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.columns import PAD
from sracl_dist.model.inputs import Batch
from sracl_dist.model.rows import Rows

ITEMS = st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=9), min_size=1, max_size=5)


def make_batch(histories: list[list[int]]) -> Batch:
    rows = Rows(
        items_T=torch.tensor([item for history in histories for item in history]),
        lengths_B=torch.tensor([len(history) for history in histories]),
    )
    return Batch(
        rows=rows,
        targets_T=torch.zeros_like(rows.items_T),
        places_B=rows.starts_B,
        histories_H=torch.arange(len(rows)),
        history_users_G=torch.arange(10, 10 + len(rows)),
        histories_per_rank=(len(rows),),
        rows_with_targets_per_rank=(0,),
        rank=0,
        num_targets=0,
    )


@settings(max_examples=200, deadline=None)
@given(st.data(), ITEMS)
def test_seen_before_equals_brute_force(data: st.DataObject, histories: list[list[int]]) -> None:
    """Rows repeat items; a chosen place sees its own row only, itself included, and each item once."""
    prefixes = [history[: place + 1] for history in histories for place in range(len(history))]
    chosen = sorted(data.draw(st.sets(st.integers(0, len(prefixes) - 1))))
    rows_R, items_R = make_batch(histories).seen_before(torch.tensor(chosen, dtype=torch.int64))
    pairs = list(zip(rows_R.tolist(), items_R.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {(index, item) for index, place in enumerate(chosen) for item in prefixes[place]}
    assert rows_R.tolist() == sorted(rows_R.tolist())


def test_own_history_users_are_this_workers_part() -> None:
    batch = make_batch([[1], [2], [3]])
    parts = (1, 0, 2)
    users = [replace(batch, histories_per_rank=parts, rank=rank).own_history_users().tolist() for rank in range(3)]
    assert users == [[10], [], [11, 12]]


@settings(max_examples=150, deadline=None)
@given(st.data(), ITEMS, st.integers(0, 4))
def test_later_targets_are_those_behind_the_next_one_in_the_same_row(
    data: st.DataObject, histories: list[list[int]], num_later: int
) -> None:
    targets = [data.draw(st.lists(st.integers(0, 5), min_size=len(row), max_size=len(row))) for row in histories]
    batch = replace(make_batch(histories), targets_T=torch.tensor([target for row in targets for target in row]))
    places = data.draw(st.lists(st.integers(0, len(batch.targets_T) - 1), max_size=6))
    expected = [(row[place + 1 :] + [PAD] * num_later)[:num_later] for row in targets for place in range(len(row))]
    later = batch.later_targets(torch.tensor(places, dtype=torch.int64), num_later)
    assert later.tolist() == [expected[place] for place in places]
