"""Training histories as rows of limited length, and the order in which they are trained.

A history of n items has n - 1 targets. A row is a window of at most max_length items. Windows are laid from the end of
a history backwards, so that a user's state is made from its latest items, and they overlap, so that every target has
enough items before it; it is trained in one of them only.

B rows of a worker, T items of all its rows together, R rows of all workers.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from sracl_dist.columns import PAD
from sracl_dist.model.inputs import Batch
from sracl_dist.model.rows import Rows
from sracl_dist.sequences import USERS_PER_PIECE, Sequences


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Rows over training items of users; items are counted from 0 within a user's training items."""

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

    def take(self, places: NDArray[np.int64]) -> "Windows":
        """Some of them."""
        return Windows(**{member.name: getattr(self, member.name)[places] for member in fields(self)})


class Cuts:
    """Where every user's training items are cut into windows.

    Targets are the items 1..n-1 of each user, each in exactly one window, with all items before it or at least
    max_length // 2 of them (one at least) as context. Users without training items have no window. Only the number of
    each user's windows is kept; what they are is worked out for those that are asked for.
    """

    def __init__(self, num_train_U: NDArray[np.int32], max_length: int) -> None:
        self._num_train_U, self._max_length = num_train_U, max_length
        self._context = max(1, max_length // 2)
        self._stride = max_length - self._context + 1
        first_U = np.zeros(len(num_train_U) + 1, np.int64)
        for start in range(0, len(num_train_U), USERS_PER_PIECE):
            piece = self._num_windows(num_train_U[start : start + USERS_PER_PIECE])
            first_U[start + 1 : start + 1 + len(piece)] = first_U[start] + np.cumsum(piece)
        # The first window of each user, and behind them the number of all.
        self._first_U: NDArray[np.int32 | np.int64] = first_U.astype(smallest_type(int(first_U[-1])))

    def __len__(self) -> int:
        return int(self._first_U[-1])

    def windows(self, rows_R: NDArray[np.integer]) -> Windows:
        """The windows with these numbers."""
        # Of the same type, or those of all users would be converted for the search.
        user_R = np.searchsorted(self._first_U, rows_R.astype(self._first_U.dtype), side="right") - 1
        length_R = self._num_train_U[user_R].astype(np.int64)
        back_R = rows_R.astype(np.int64) - self._first_U[user_R]
        ends_R = back_R == 0
        # The b-th window before the last one trains targets up to and with left - (b - 1) * stride.
        last_target_R = np.where(ends_R, length_R - 1, self._left_to_earlier(length_R) - (back_R - 1) * self._stride)
        stop_R = np.where(ends_R, length_R, last_target_R)
        start_R = np.maximum(stop_R - self._max_length, 0)
        first_target_R = np.where(start_R > 0, start_R + self._context, 1)
        return Windows(
            user_R=user_R,
            start_R=start_R,
            stop_R=stop_R,
            first_target_R=np.minimum(first_target_R, last_target_R + 1),
            stop_target_R=last_target_R + 1,
            ends_history_R=ends_R,
        )

    def _num_windows(self, length_U: NDArray[np.int32]) -> NDArray[np.int64]:
        left_U = self._left_to_earlier(length_U.astype(np.int64))
        earlier_U = np.where(left_U > 0, 1 + -(-np.maximum(left_U - self._max_length, 0) // self._stride), 0)
        return np.where(length_U > 0, 1 + earlier_U, 0)

    def _left_to_earlier(self, length_U: NDArray[np.int64]) -> NDArray[np.int64]:
        """The targets 1..left of a history are left to the windows before its last."""
        left_U = length_U - self._max_length + self._context - 1
        return np.where(length_U > self._max_length, left_U, 0)


def smallest_type(largest: int) -> type[np.int32] | type[np.int64]:
    """The type of integers up to `largest`."""
    return np.int32 if largest <= np.iinfo(np.int32).max else np.int64


class TrainingBatches:
    """The rows of one epoch after the other, shared out over workers.

    The rows of a step depend on the seed and the epoch but not on the number of workers; every worker takes part in
    every step, with a share of its rows that may be empty in the extreme.
    """

    def __init__(
        self, sequences: Sequences, max_length: int, batch_rows: int, seed: int, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self._sequences = sequences
        self.cuts = Cuts(sequences.num_train, max_length)
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self.num_steps = -(-len(self.cuts) // batch_rows)
        # A user's first item is none.
        self.num_targets = int(sequences.num_train.sum(dtype=np.int64) - np.count_nonzero(sequences.num_train))

    def order(self, epoch: int) -> list[NDArray[np.integer]]:
        """Rows of every step of the epoch, of all workers together; steps differ by one row at most."""
        shuffled_R = np.arange(len(self.cuts), dtype=smallest_type(len(self.cuts)))
        np.random.default_rng([self._seed, epoch]).shuffle(shuffled_R)
        return np.array_split(shuffled_R, self.num_steps) if self.num_steps else []

    def batch(self, rows: NDArray[np.integer]) -> Batch:
        """This worker's part of a step with these rows."""
        windows = self.cuts.windows(rows)
        parts = np.array_split(np.arange(len(rows)), self._world_size)
        ends_per_rank = [windows.ends_history_R[part] for part in parts]
        own = windows.take(parts[self._rank])
        first_places_B = self._sequences.offsets[own.user_R] + own.start_R
        items_T, targets_T, lengths_B = self._items_and_targets(own, first_places_B)
        return Batch(
            rows=Rows(items_T=torch.from_numpy(items_T), lengths_B=torch.from_numpy(lengths_B)),
            targets_T=torch.from_numpy(targets_T),
            places_B=torch.from_numpy(first_places_B),
            histories_H=torch.from_numpy(np.flatnonzero(ends_per_rank[self._rank])),
            history_users_G=torch.from_numpy(windows.user_R[windows.ends_history_R]),
            histories_per_rank=tuple(int(ends.sum()) for ends in ends_per_rank),
            rows_with_targets_per_rank=tuple(int((windows.num_targets_R[part] > 0).sum()) for part in parts),
            rank=self._rank,
            num_targets=int(windows.num_targets_R.sum()),
        )

    def _items_and_targets(
        self, own: Windows, first_places_B: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Items [T], the item after each of them where it is trained in this row, else PAD; and lengths [B]."""
        items = self._sequences.items
        lengths_B = own.stop_R - own.start_R
        position_T = np.arange(int(lengths_B.sum())) - np.repeat(np.cumsum(lengths_B) - lengths_B, lengths_B)
        place_T = np.repeat(first_places_B, lengths_B) + position_T
        # Counted within the user's items: the target of an item is the one after it.
        target_T = np.repeat(own.start_R, lengths_B) + position_T + 1
        is_trained_T = (target_T >= np.repeat(own.first_target_R, lengths_B)) & (
            target_T < np.repeat(own.stop_target_R, lengths_B)
        )
        next_T = items[np.minimum(place_T + 1, len(items) - 1)]
        return items[place_T].astype(np.int64), np.where(is_trained_T, next_T, PAD).astype(np.int64), lengths_B
