from collections import Counter

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import from_histories, make_sequences, with_other_future

from sracl_dist.columns import PAD
from sracl_dist.data.sequences import Sequences
from sracl_dist.model.inputs import Batch
from sracl_dist.train.batches import TrainingBatches, make_windows

NUM_TRAIN = st.lists(st.integers(0, 40), min_size=1, max_size=25)


def numbered(num_train: list[int]) -> Sequences:
    """Every interaction has an item of its own, so that a target tells where it comes from."""
    total = sum(num_train) + 2 * len(num_train)
    ends = np.cumsum(np.array(num_train) + 2)
    histories = np.split(np.arange(1, total + 1), ends[:-1])
    return from_histories(list(histories), num_items=total)


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
        assert sum(len(batch.lengths_B) for batch in step) <= batch_rows
        for batch in step:
            trained.update(batch.targets_BL[batch.targets_BL != PAD].tolist())
            histories.update(batch.own_history_users().tolist())
            check_batch(batch, sequences, max_length)
        assert sum(int((batch.targets_BL != PAD).sum()) for batch in step) == step[0].num_targets
    wanted = [item for user in range(sequences.num_users) for item in sequences.training(user)[1:].tolist()]
    assert trained == Counter(wanted)
    assert histories == Counter(np.flatnonzero(sequences.num_train).tolist())


def check_batch(batch: Batch, sequences: Sequences, max_length: int) -> None:
    assert batch.items_BL.shape[1] <= max_length
    assert batch.items_BL.shape == batch.targets_BL.shape
    firsts = {int(sequences.training(user)[0]) for user in np.flatnonzero(sequences.num_train)}
    for items, targets, length in zip(
        batch.items_BL.tolist(), batch.targets_BL.tolist(), batch.lengths_B.tolist(), strict=True
    ):
        assert all(items[:length])
        assert not any(items[length:])
        for place, target in enumerate(targets):
            if target != PAD:
                # Items of a user are numbered consecutively: the input before a target is its predecessor.
                assert items[place] == target - 1
                assert place + 1 >= max(1, max_length // 2) or items[0] in firsts
    for row, user in zip(batch.histories_H.tolist(), batch.own_history_users().tolist(), strict=True):
        history = sequences.training(user)
        assert batch.items_BL[row][: batch.lengths_B[row]].tolist() == history[-max_length:].tolist()


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
        rows = [
            row[:length].tolist()
            for part in parts
            for row, length in zip(part.items_BL, part.lengths_B.tolist(), strict=True)
        ]
        assert rows == [
            row[:length].tolist() for row, length in zip(single.items_BL, single.lengths_B.tolist(), strict=True)
        ]
        for rank, part in enumerate(parts):
            assert part.history_users_G.tolist() == single.history_users_G.tolist()
            assert len(part.histories_H) == part.histories_per_rank[rank]
            assert part.num_targets == single.num_targets


def test_no_validation_or_test_item_reaches_a_batch() -> None:
    sequences = make_sequences(60)
    changed = with_other_future(sequences)
    assert (changed.items != sequences.items).sum() == 120
    for epoch in range(2):
        for (one,), (other,) in zip(
            all_batches(sequences, 6, 16, 1, epoch), all_batches(changed, 6, 16, 1, epoch), strict=True
        ):
            for name, value in vars(one).items():
                same = torch.equal(value, getattr(other, name)) if isinstance(value, torch.Tensor) else None
                assert same or value == getattr(other, name), name


def test_order_depends_on_seed_and_epoch_only() -> None:
    sequences = make_sequences(60)

    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(TrainingBatches(sequences, 6, 16, seed).order(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_steps_are_of_equal_size() -> None:
    sizes = {len(rows) for rows in TrainingBatches(make_sequences(61), 50, 16, 0).order(0)}
    assert sizes == {15, 16}


def test_windows_of_a_long_history() -> None:
    windows = make_windows(np.array([9], np.int32), 4)
    spans = sorted(zip(windows.start_R.tolist(), windows.stop_R.tolist(), windows.first_target_R.tolist(), strict=True))
    # Targets 7 and 8 belong to the last window, 4 to 6 to the one before it, 1 to 3 to the first.
    assert spans == [(0, 3, 1), (2, 6, 4), (5, 9, 7)]
    assert windows.ends_history_R.tolist() == [True, False, False]
