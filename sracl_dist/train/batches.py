"""Training histories as rows of limited length, and the order in which they are trained.

A history of n items has n - 1 targets. A row is a window of at most max_length items. Windows are laid from the end of
a history backwards, so that a user's state is made from its latest items, and they overlap, so that every target has
enough items before it; it is trained in one of them only.

B rows of a worker, T items of all its rows together, R rows of all workers.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from sracl_dist.columns import PAD
from sracl_dist.data.sequences import Sequences
from sracl_dist.model.inputs import Batch
from sracl_dist.model.rows import Rows


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Rows over the training items of all users; items are counted from 0 within a user's training items."""

    user_R: NDArray[np.int64]
    """Whose items."""
    start_R: NDArray[np.int64]
    """First item of the window."""
    stop_R: NDArray[np.int64]
    """One past the last item of the window."""
    first_target_R: NDArray[np.int64]
    """First item trained here as a target."""
    stop_target_R: NDArray[np.int64]
    """One past the last item trained here as a target."""
    ends_history_R: NDArray[np.bool_]
    """Whether the window ends the user's training items."""

    def __len__(self) -> int:
        return len(self.user_R)

    @property
    def num_targets_R(self) -> NDArray[np.int64]:
        """How many targets each row trains."""
        return self.stop_target_R - self.first_target_R


def make_windows(num_train_U: NDArray[np.int32], max_length: int) -> Windows:
    """Cut every user's training items into windows.

    Targets are the items 1..n-1 of each user, each in exactly one window, with all items before it or at least
    max_length // 2 of them (one at least) as context. Users without training items have no window.
    """
    context = max(1, max_length // 2)
    stride = max_length - context + 1
    length_U = num_train_U.astype(np.int64)
    # What the last window leaves to earlier ones: the targets 1..left, in windows that end before target `left`.
    left_U = np.where(length_U > max_length, length_U - max_length + context - 1, 0)
    earlier_U = np.where(left_U > 0, 1 + -(-np.maximum(left_U - max_length, 0) // stride), 0)
    windows_U = np.where(length_U > 0, 1 + earlier_U, 0)

    user_R = np.repeat(np.arange(len(length_U)), windows_U)
    back_R = np.arange(len(user_R)) - np.repeat(np.cumsum(windows_U) - windows_U, windows_U)
    ends_R = back_R == 0
    # The b-th window before the last one trains targets up to and with left - (b - 1) * stride.
    last_target_R = np.where(ends_R, length_U[user_R] - 1, left_U[user_R] - (back_R - 1) * stride)
    stop_R = np.where(ends_R, length_U[user_R], last_target_R)
    start_R = np.maximum(stop_R - max_length, 0)
    first_target_R = np.where(start_R > 0, start_R + context, 1)
    return Windows(
        user_R=user_R,
        start_R=start_R,
        stop_R=stop_R,
        first_target_R=np.minimum(first_target_R, last_target_R + 1),
        stop_target_R=last_target_R + 1,
        ends_history_R=ends_R,
    )


class TrainingBatches:
    """The rows of one epoch after the other, shared out over workers.

    The rows of a step depend on the seed and the epoch but not on the number of workers; every worker takes part in
    every step, with a share of its rows that may be empty in the extreme.
    """

    def __init__(
        self, sequences: Sequences, max_length: int, batch_rows: int, seed: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self._sequences = sequences
        self._windows = make_windows(sequences.num_train, max_length)
        self._max_length, self._seed = max_length, seed
        self._rank, self._world_size = rank, world_size
        self.num_steps = -(-len(self._windows) // batch_rows)
        self.num_targets = int(self._windows.num_targets_R.sum())

    def order(self, epoch: int) -> list[NDArray[np.int64]]:
        """Rows of every step of the epoch, of all workers together; steps differ by one row at most."""
        shuffled_R = np.random.default_rng([self._seed, epoch]).permutation(len(self._windows))
        return np.array_split(shuffled_R, self.num_steps) if self.num_steps else []

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """This worker's part of a step with these rows."""
        windows = self._windows
        parts = np.array_split(rows, self._world_size)
        own = parts[self._rank]
        ends_per_rank = [windows.ends_history_R[part] for part in parts]
        first_places_B = self._sequences.offsets[windows.user_R[own]] + windows.start_R[own]
        items_T, targets_T, lengths_B = self._items_and_targets(own, first_places_B)
        return Batch(
            rows=Rows(items_T=torch.from_numpy(items_T), lengths_B=torch.from_numpy(lengths_B)),
            targets_T=torch.from_numpy(targets_T),
            places_B=torch.from_numpy(first_places_B),
            histories_H=torch.from_numpy(np.flatnonzero(ends_per_rank[self._rank])),
            history_users_G=torch.from_numpy(windows.user_R[rows[windows.ends_history_R[rows]]]),
            histories_per_rank=tuple(int(ends.sum()) for ends in ends_per_rank),
            rows_with_targets_per_rank=tuple(int((windows.num_targets_R[part] > 0).sum()) for part in parts),
            rank=self._rank,
            num_targets=int(windows.num_targets_R[rows].sum()),
        )

    def _items_and_targets(
        self, own: NDArray[np.int64], first_places_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Items [T], the item after each of them where it is trained in this row, else PAD; and lengths [B]."""
        windows, items = self._windows, self._sequences.items
        lengths_B = windows.stop_R[own] - windows.start_R[own]
        position_T = np.arange(int(lengths_B.sum())) - np.repeat(np.cumsum(lengths_B) - lengths_B, lengths_B)
        place_T = np.repeat(first_places_B, lengths_B) + position_T
        # Counted within the user's items: the target of an item is the one after it.
        target_T = np.repeat(windows.start_R[own], lengths_B) + position_T + 1
        is_trained_T = (target_T >= np.repeat(windows.first_target_R[own], lengths_B)) & (
            target_T < np.repeat(windows.stop_target_R[own], lengths_B)
        )
        next_T = items[np.minimum(place_T + 1, len(items) - 1)]
        return items[place_T].astype(np.int64), np.where(is_trained_T, next_T, PAD).astype(np.int64), lengths_B
