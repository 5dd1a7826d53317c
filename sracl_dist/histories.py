"""Histories of some users, one after the other in one array, so that thousands are taken and cut without a loop.

B histories, T items of all of them.
"""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray


class Histories(Sequence[NDArray[np.int32]]):
    """A sequence of item arrays, oldest item first.

    >>> histories = Histories.of([np.array([1, 2, 3]), np.array([4])])
    >>> [history.tolist() for history in histories.latest(2)]
    [[2, 3], [4]]
    """

    def __init__(self, items_T: NDArray[np.int32], offsets: NDArray[np.int64]) -> None:
        """History b is items_T[offsets[b] : offsets[b + 1]]; nothing is copied."""
        self.items_T, self.offsets = items_T, offsets

    @staticmethod
    def of(histories: Sequence[NDArray[np.int32]]) -> "Histories":
        """The same histories; without a copy where they have this form already."""
        if isinstance(histories, Histories):
            return histories
        items_T = np.concatenate([np.zeros(0, np.int32), *histories]).astype(np.int32)
        return Histories(items_T, np.cumsum([0, *map(len, histories)], dtype=np.int64))

    @staticmethod
    def gather(items: NDArray[np.int32], starts_B: NDArray[np.int64], lengths_B: NDArray[np.integer]) -> "Histories":
        """The pieces of `items` with these first places and lengths."""
        offsets = np.concatenate([[0], np.cumsum(lengths_B, dtype=np.int64)])
        places_T = np.arange(offsets[-1]) + np.repeat(starts_B - offsets[:-1], lengths_B)
        return Histories(items[places_T], offsets)

    @property
    def lengths_B(self) -> NDArray[np.int64]:
        """Items of each history."""
        return np.diff(self.offsets)

    def latest(self, max_length: int) -> "Histories":
        """The last `max_length` items of every history."""
        lengths_B = np.minimum(self.lengths_B, max_length)
        return Histories.gather(self.items_T, self.offsets[1:] - lengths_B, lengths_B)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> NDArray[np.int32]: ...
    @overload
    def __getitem__(self, index: slice) -> "Histories": ...
    def __getitem__(self, index: int | slice) -> "NDArray[np.int32] | Histories":
        if not isinstance(index, slice):
            row = range(len(self))[index]
            return self.items_T[self.offsets[row] : self.offsets[row + 1]]
        rows = range(len(self))[index]
        if rows.step != 1:
            raise ValueError(f"histories are taken with step {rows.step}; use 1")
        offsets = self.offsets[rows.start : max(rows.start, rows.stop) + 1]
        return Histories(self.items_T[offsets[0] : offsets[-1]], offsets - offsets[0])
