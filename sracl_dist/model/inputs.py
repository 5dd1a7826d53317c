"""What the model reads: histories of different lengths as one tensor, and the batch of a training step.

B rows of this worker, L positions, D width, G histories of all workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.columns import PAD


@dataclass(frozen=True, kw_only=True)
class Batch:
    """This worker's part of a training step, and what it must know of the other workers' parts."""

    items_BL: Tensor
    """Item ids, int64, PAD on the right."""
    targets_BL: Tensor
    """The item after each position, PAD where it is not trained here."""
    lengths_B: Tensor
    """Items per row, at least 1."""
    histories_H: Tensor
    """Rows that end their user's training history, ascending; their last state is the user's state."""
    history_users_G: Tensor
    """Users of such rows of all workers, in the order of the ranks."""
    histories_per_rank: tuple[int, ...]
    """How many of them each worker has."""
    rank: int
    """This worker."""
    num_targets: int
    """Trained targets of all workers together."""

    def own_history_users(self) -> Tensor:
        """Users of this worker's `histories_H`."""
        start = sum(self.histories_per_rank[: self.rank])
        return self.history_users_G[start : start + self.histories_per_rank[self.rank]]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on `device`."""
        return replace(
            self,
            items_BL=self.items_BL.to(device),
            targets_BL=self.targets_BL.to(device),
            lengths_B=self.lengths_B.to(device),
            histories_H=self.histories_H.to(device),
            history_users_G=self.history_users_G.to(device),
        )


def right_padded(histories: Sequence[NDArray[np.int32]], max_length: int) -> tuple[Tensor, Tensor]:
    """The latest `max_length` items of every history, oldest first, filled up with PAD on the right.

    Padding on the right keeps it out of every real position's past, so that a causal mask alone hides it; the tensor
    is only as wide as the longest row needs.

    Returns:
        items_BL int64, and lengths_B int64 (0 for an empty history).
    """
    cut = [history[-max_length:] for history in histories]
    lengths_B = np.fromiter((len(row) for row in cut), dtype=np.int64, count=len(cut))
    width = int(lengths_B.max(initial=1))
    items_BL = np.full((len(cut), width), PAD, dtype=np.int64)
    if len(cut):
        items_BL[np.arange(width) < lengths_B[:, None]] = np.concatenate(cut)
    return torch.from_numpy(items_BL), torch.from_numpy(lengths_B)


def last_states(states_BLD: Tensor, lengths_B: Tensor) -> Tensor:
    """States [B, D] at every row's last item; lengths are at least 1."""
    rows_B = torch.arange(len(lengths_B), device=states_BLD.device)
    return states_BLD[rows_B, lengths_B - 1]
