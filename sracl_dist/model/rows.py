"""Histories of different lengths as one tensor without padding.

B rows, T items of all rows together, L positions of a group, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.histories import Histories

SHORTEST_GROUP = 4
"""Rows up to this length are grouped together; wider groups double from here."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Item ids of all rows, one row after the other.

    Everything that works on one position at a time works on T positions, however long the rows are. What relates the
    positions of a row, such as attention, takes the rows in `groups` of similar length.
    """

    items_T: Tensor
    """Item ids 1..V, int64; PAD stands for an item that is hidden."""
    lengths_B: Tensor
    """Items per row, at least 1; int64, always in the CPU's memory, so that shapes never wait for a device."""

    def __len__(self) -> int:
        return len(self.lengths_B)

    @property
    def device(self) -> torch.device:
        """Where the items are."""
        return self.items_T.device

    def to(self, device: torch.device) -> "Rows":
        """The same rows with their items on `device`."""
        return Rows(items_T=self.items_T.to(device), lengths_B=self.lengths_B)

    @cached_property
    def starts_B(self) -> Tensor:
        """Place of each row's first item, in the CPU's memory."""
        return self.lengths_B.cumsum(0) - self.lengths_B

    @cached_property
    def last_B(self) -> Tensor:
        """Place of each row's last item."""
        return (self.starts_B + self.lengths_B - 1).to(self.device)

    @cached_property
    def positions_T(self) -> Tensor:
        """Position of each item within its row, from 0."""
        return self._positions_T.to(self.device)

    @cached_property
    def _positions_T(self) -> Tensor:
        return torch.arange(len(self.items_T)) - self.starts_B.repeat_interleave(self.lengths_B)

    @cached_property
    def groups(self) -> tuple[tuple[Tensor, ...], Tensor]:
        """Rows of similar length side by side.

        Returns:
            for each group the places [b, L] of its rows' items, where slots behind a row's end repeat its last item;
            and for each of the T items its slot among all groups' slots, counted group by group and row by row.
        """
        lengths, starts = self.lengths_B.numpy(), self.starts_B.numpy()
        limits = _group_limits(int(lengths.max(initial=1)))
        group_B = np.searchsorted(limits, lengths)
        places, slot_T, num_slots = [], np.empty(len(self.items_T), np.int64), 0
        for group in np.unique(group_B):
            rows_b = np.flatnonzero(group_B == group)
            width = int(lengths[rows_b].max())
            offsets_bL = np.minimum(np.arange(width), lengths[rows_b, None] - 1)
            places_bL = starts[rows_b, None] + offsets_bL
            is_item_bL = np.arange(width) < lengths[rows_b, None]
            slots_bL = num_slots + np.arange(places_bL.size).reshape(places_bL.shape)
            slot_T[places_bL[is_item_bL]] = slots_bL[is_item_bL]
            num_slots += places_bL.size
            places.append(torch.from_numpy(places_bL).to(self.device))
        return tuple(places), torch.from_numpy(slot_T).to(self.device)

    def with_items(self, items_T: Tensor) -> "Rows":
        """Rows of the same lengths with other items."""
        return Rows(items_T=items_T, lengths_B=self.lengths_B)

    def select(self, rows_M: Tensor) -> "Rows":
        """The chosen rows, in the order given; indices in the CPU's memory."""
        lengths_M = self.lengths_B[rows_M]
        return Rows(
            items_T=self.items_T[_places(self.starts_B[rows_M], lengths_M).to(self.device)], lengths_B=lengths_M
        )

    @staticmethod
    def concatenate(parts: Sequence["Rows"]) -> "Rows":
        """The rows of all parts, one part after the other."""
        return Rows(
            items_T=torch.cat([part.items_T for part in parts]), lengths_B=torch.cat([part.lengths_B for part in parts])
        )


def latest_rows(histories: Sequence[NDArray[np.int32]], max_length: int) -> Rows:
    """The latest `max_length` items of every history, oldest first; no history may be empty."""
    latest = Histories.of(histories).latest(max_length)
    return Rows(items_T=torch.from_numpy(latest.items_T.astype(np.int64)), lengths_B=torch.from_numpy(latest.lengths_B))


def _places(starts_M: Tensor, lengths_M: Tensor) -> Tensor:
    """Places of the items of rows with these first places and lengths, one row after the other."""
    shift_M = starts_M - (lengths_M.cumsum(0) - lengths_M)
    return torch.arange(int(lengths_M.sum())) + shift_M.repeat_interleave(lengths_M)


def _group_limits(longest: int) -> list[int]:
    """Greatest length of every group."""
    limits = [SHORTEST_GROUP]
    while limits[-1] < longest:
        limits.append(2 * limits[-1])
    return limits
