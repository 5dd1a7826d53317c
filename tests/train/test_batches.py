from collections import Counter
from dataclasses import replace
from operator import attrgetter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import differences, from_histories, make_sequences, with_other_future

from sracl_dist.columns import PAD
from sracl_dist.model.inputs import Batch
from sracl_dist.sequences import Sequences
from sracl_dist.train.batches import Cuts, TrainingBatches, Windows, smallest_type

NUM_TRAIN = st.lists(st.integers(0, 40), min_size=1, max_size=25)


def make_windows(num_train: list[int], max_length: int) -> Windows:
    cuts = Cuts(np.array(num_train, np.int32), max_length)
    return cuts.windows(np.arange(len(cuts)))


def numbered(num_train: list[int]) -> Sequences:
    """Every interaction has an item of its own, so that a target tells where it comes from."""
    total = sum(num_train) + 2 * len(num_train)
    ends = np.cumsum(np.array(num_train) + 2)
    histories = np.split(np.arange(1, total + 1), ends[:-1])
    return from_histories(list(histories), num_items=total)


def make_sequences_of(num_train: list[int]) -> Sequences:
    """Random items, among them repeated ones."""
    random = np.random.default_rng(sum(num_train))
    sequences = numbered(num_train)
    return replace(sequences, items=random.integers(1, 6, len(sequences.items)).astype(np.int32))


def all_batches(
    sequences: Sequences, max_length: int, batch_rows: int, world_size: int, epoch: int = 0
) -> list[list[Batch]]:
    """Per step the batches of all workers."""
    workers = [
        TrainingBatches(sequences, max_length, batch_rows, 5, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return [[worker.batch(rows) for worker in workers] for rows in workers[0].order(epoch)]


@settings(max_examples=150, deadline=None)
@given(NUM_TRAIN, st.integers(1, 9), st.integers(1, 12), st.integers(1, 4))
def test_every_target_is_trained_exactly_once(
    num_train: list[int], max_length: int, batch_rows: int, world_size: int
) -> None:
    sequences = numbered(num_train)
    trained: Counter[int] = Counter()
    histories: Counter[int] = Counter()
    for step in all_batches(sequences, max_length, batch_rows, world_size):
        assert sum(len(batch.rows) for batch in step) <= batch_rows
        for batch in step:
            trained.update(batch.targets_T[batch.targets_T != PAD].tolist())
            histories.update(batch.own_history_users().tolist())
            check_batch(batch, sequences, max_length)
        assert sum(int((batch.targets_T != PAD).sum()) for batch in step) == step[0].num_targets
    wanted = [item for user in range(sequences.num_users) for item in sequences.training(user)[1:].tolist()]
    assert trained == Counter(wanted)
    assert histories == Counter(np.flatnonzero(sequences.num_train).tolist())


def split(batch: Batch, values: torch.Tensor) -> list[list[int]]:
    """One list per row."""
    return [row.tolist() for row in values.split(batch.rows.lengths_B.tolist())]


def check_batch(batch: Batch, sequences: Sequences, max_length: int) -> None:
    assert len(batch.rows.items_T) == len(batch.targets_T) == batch.rows.lengths_B.sum()
    assert batch.rows.lengths_B.max().item() <= max_length if len(batch.rows) else True
    firsts = {int(sequences.training(user)[0]) for user in np.flatnonzero(sequences.num_train)}
    rows = split(batch, batch.rows.items_T)
    for items, targets, place in zip(rows, split(batch, batch.targets_T), batch.places_B.tolist(), strict=True):
        assert items == sequences.items[place : place + len(items)].tolist()
        for position, target in enumerate(targets):
            if target != PAD:
                # Items of a user are numbered consecutively: the input before a target is its predecessor.
                assert items[position] == target - 1
                assert position + 1 >= max(1, max_length // 2) or items[0] in firsts
    for row, user in zip(batch.histories_H.tolist(), batch.own_history_users().tolist(), strict=True):
        assert rows[row] == sequences.training(user)[-max_length:].tolist()
    own_rows_with_targets = sum(any(targets) for targets in split(batch, batch.targets_T))
    assert own_rows_with_targets == batch.rows_with_targets_per_rank[batch.rank]


@settings(max_examples=100, deadline=None)
@given(st.data(), NUM_TRAIN, st.integers(1, 9), st.integers(1, 4))
def test_a_batch_equals_one_made_row_by_row(
    data: st.DataObject, num_train: list[int], max_length: int, world_size: int
) -> None:
    sequences, windows = make_sequences_of(num_train), make_windows(num_train, max_length)
    row = st.integers(0, max(0, len(windows) - 1))
    wanted = data.draw(st.lists(row, max_size=12 if len(windows) else 0, unique=True))
    parts = np.array_split(np.array(wanted, np.int64), world_size)
    for rank, own in enumerate(parts):
        items, targets, places = [], [], []
        for index in own:
            user, start, stop = (int(field[index]) for field in (windows.user_R, windows.start_R, windows.stop_R))
            history = sequences.training(user).tolist()
            items.append(history[start:stop])
            trained = range(int(windows.first_target_R[index]), int(windows.stop_target_R[index]))
            targets.append([history[place + 1] if place + 1 in trained else PAD for place in range(start, stop)])
            places.append(int(sequences.offsets[user]) + start)
        batches = TrainingBatches(sequences, max_length, 4, 0, rank=rank, world_size=world_size)
        batch = batches.batch(np.array(wanted, np.int64))
        assert split(batch, batch.rows.items_T) == items
        assert split(batch, batch.targets_T) == targets
        assert batch.places_B.tolist() == places
        ends = [windows.ends_history_R[part] for part in parts]
        assert batch.histories_H.tolist() == np.flatnonzero(ends[rank]).tolist()
        users = [windows.user_R[part][own_ends] for part, own_ends in zip(parts, ends, strict=True)]
        assert batch.history_users_G.tolist() == np.concatenate(users).tolist()
        assert batch.histories_per_rank == tuple(len(own_users) for own_users in users)
        with_targets = [sum(windows.stop_target_R[index] > windows.first_target_R[index] for index in p) for p in parts]
        assert batch.rows_with_targets_per_rank == tuple(with_targets)
        assert batch.num_targets == int(windows.num_targets_R[wanted].sum())
        assert batch.rank == rank
        for name in ("rows.items_T", "targets_T", "places_B", "rows.lengths_B", "histories_H", "history_users_G"):
            assert attrgetter(name)(batch).dtype == torch.int64, name


@settings(max_examples=50, deadline=None)
@given(NUM_TRAIN, st.integers(1, 9), st.integers(1, 12), st.integers(2, 4))
def test_the_rows_of_a_step_do_not_depend_on_the_number_of_workers(
    num_train: list[int], max_length: int, batch_rows: int, world_size: int
) -> None:
    sequences = numbered(num_train)
    alone = all_batches(sequences, max_length, batch_rows, 1)
    together = all_batches(sequences, max_length, batch_rows, world_size)
    assert len(alone) == len(together)
    for (single,), parts in zip(alone, together, strict=True):
        assert [row for part in parts for row in split(part, part.rows.items_T)] == split(single, single.rows.items_T)
        for rank, part in enumerate(parts):
            assert part.history_users_G.tolist() == single.history_users_G.tolist()
            assert len(part.histories_H) == part.histories_per_rank[rank]
            assert part.num_targets == single.num_targets
            assert sum(part.rows_with_targets_per_rank) == single.rows_with_targets_per_rank[0]


def test_no_validation_or_test_item_reaches_a_batch() -> None:
    sequences = make_sequences(60)
    changed = with_other_future(sequences)
    assert (changed.items != sequences.items).sum() == 120
    for epoch in range(2):
        for (one,), (other,) in zip(
            all_batches(sequences, 6, 16, 1, epoch), all_batches(changed, 6, 16, 1, epoch), strict=True
        ):
            assert differences(one, other) == []


def test_order_depends_on_seed_and_epoch_only() -> None:
    sequences = make_sequences(60)

    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(TrainingBatches(sequences, 6, 16, seed).order(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 200), st.integers(0, 5))
def test_the_order_is_that_of_a_permutation_of_any_type_of_number(num_users: int, epoch: int) -> None:
    batches = TrainingBatches(numbered([2] * num_users), 4, 8, 3)
    order = np.concatenate([np.zeros(0), *batches.order(epoch)]).tolist()
    assert order == np.random.default_rng([3, epoch]).permutation(num_users).tolist()
    assert smallest_type(2**31 - 1) is np.int32
    assert smallest_type(2**31) is np.int64


@settings(max_examples=50, deadline=None)
@given(NUM_TRAIN, st.integers(1, 9), st.data())
def test_windows_are_the_same_in_any_selection_and_in_pieces(
    num_train: list[int], max_length: int, data: st.DataObject
) -> None:
    everything = make_windows(num_train, max_length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sracl_dist.train.batches.USERS_PER_PIECE", 3)
        cuts = Cuts(np.array(num_train, np.int32), max_length)
    assert len(cuts) == len(everything)
    row = st.integers(0, max(0, len(cuts) - 1))
    rows = np.array(data.draw(st.lists(row, max_size=9 if len(cuts) else 0)), np.int32)
    chosen, expected = cuts.windows(rows), everything.take(rows.astype(np.int64))
    for name in ("user_R", "start_R", "stop_R", "first_target_R", "stop_target_R", "ends_history_R"):
        assert getattr(chosen, name).tolist() == getattr(expected, name).tolist(), name
    assert chosen.user_R.dtype == np.int64


def test_steps_are_of_equal_size() -> None:
    sizes = {len(rows) for rows in TrainingBatches(make_sequences(61), 50, 16, 0).order(0)}
    assert sizes == {15, 16}


def test_windows_of_a_long_history() -> None:
    windows = make_windows([9], 4)
    spans = sorted(zip(windows.start_R.tolist(), windows.stop_R.tolist(), windows.first_target_R.tolist(), strict=True))
    # Targets 7 and 8 belong to the last window, 4 to 6 to the one before it, 1 to 3 to the first.
    assert spans == [(0, 3, 1), (2, 6, 4), (5, 9, 7)]
    assert windows.ends_history_R.tolist() == [True, False, False]
