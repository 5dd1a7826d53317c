"""The batch of a training step.

B rows of this worker, T items of all its rows together, H histories of this worker, G of all workers,
M chosen places, R pairs of a chosen place and an item before it.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sracl_dist.columns import PAD
from sracl_dist.model.rows import Rows


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This worker's part of a training step, and what it must know of the other workers' parts."""

    rows: Rows
    """Histories, or windows of long ones."""
    targets_T: Tensor
    """The item after each item, PAD where it is not trained here."""
    places_B: Tensor
    """Place of each row's first item among the items of all users; int64, in the CPU's memory."""
    histories_H: Tensor
    """Rows that end their user's training history, ascending; in the CPU's memory. Their last state is the user's."""
    history_users_G: Tensor
    """Users of such rows of all workers, in the order of the ranks."""
    histories_per_rank: tuple[int, ...]
    """How many of them each worker has."""
    rows_with_targets_per_rank: tuple[int, ...]
    """How many rows with a trained target each worker has."""
    rank: int
    """This worker."""
    num_targets: int
    """Trained targets of all workers together."""

    def own_history_users(self) -> Tensor:
        """Users of this worker's `histories_H`."""
        start = sum(self.histories_per_rank[: self.rank])
        return self.history_users_G[start : start + self.histories_per_rank[self.rank]]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with what the model computes with on `device`."""
        return replace(
            self,
            rows=self.rows.to(device),
            targets_T=self.targets_T.to(device),
            history_users_G=self.history_users_G.to(device),
        )

    def later_targets(self, places_M: Tensor, num_later: int) -> Tensor:
        """Targets [M, num_later] behind the target of each of the places in its row, PAD where none follows."""
        num = len(self.targets_T)
        row_T = torch.arange(len(self.rows)).repeat_interleave(self.rows.lengths_B).to(self.rows.device)
        ahead_MF = places_M[:, None] + torch.arange(1, num_later + 1, device=self.rows.device)
        inside_MF = ahead_MF.clamp(max=num - 1)
        is_there_MF = (ahead_MF < num) & (row_T[inside_MF] == row_T[places_M, None])
        return torch.where(is_there_MF, self.targets_T[inside_MF], PAD)

    def seen_before(self, places_M: Tensor) -> tuple[Tensor, Tensor]:
        """The items that each of the places and those before it in its row hold.

        Returns:
            index [R] into `places_M`, ascending, and item id [R]; no pair twice.
        """
        items_T = self.rows.items_T.cpu().numpy()
        row_T = np.repeat(np.arange(len(self.rows)), self.rows.lengths_B.numpy())
        _, first = np.unique(row_T * (items_T.max(initial=0) + 1) + items_T, return_index=True)
        is_first_T = np.zeros(len(items_T), dtype=bool)
        is_first_T[first] = True
        places = places_M.cpu().numpy()
        starts = self.rows.starts_B.numpy()[row_T[places]]
        lengths = places - starts + 1
        chosen_R = np.repeat(np.arange(len(places)), lengths)
        place_R = np.arange(lengths.sum()) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        kept = is_first_T[place_R]
        pairs = torch.from_numpy(chosen_R[kept]), torch.from_numpy(items_T[place_R[kept]])
        return pairs[0].to(self.rows.device), pairs[1].to(self.rows.device)
