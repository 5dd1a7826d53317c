"""Items drawn as the negatives of a sampled softmax, and how often each was to be expected among them.

V catalogue, C items that can be drawn, S drawn items, M targets of a step.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sracl_dist.errors import StageError


class Sample(NamedTuple):
    """Drawn items, with repetitions, which all positions of a step share."""

    items_S: Tensor
    """Their ids."""
    log_expected_S: Tensor
    """Logarithm of each one's expected number of occurrences in a sample, float32."""


class ItemSampler(nn.Module):
    """Draws items out of a mixture of two distributions, so many from each.

    One is the catalogue, in proportion to training interactions to some power; the other is the targets of the step,
    which stand in it in proportion to how often items are targets. Which of the two an item came from makes no
    difference to its expected number of occurrences, the sum over both; with this in the place of a single
    distribution's, the sum below the fraction bar of the softmax keeps its expectation.

    A draw from the catalogue inverts the cumulative distribution by bisection: its time grows with log C, and numbers
    of 64 bits tell apart the items of any catalogue.
    """

    items_C: Tensor
    """Items with a share, ascending."""
    cumulative_C: Tensor
    """Sum of the shares up to and with each item, float64; the last is 1."""
    target_cumulative_C: Tensor
    """The same for the distribution of the targets."""

    def __init__(
        self,
        interactions_V: NDArray[np.int64],
        targets_V: NDArray[np.int64],
        *,
        power: float,
        num_sampled: int,
        in_batch_share: float,
    ) -> None:
        """Prepare for drawing.

        Args:
            interactions_V: training interactions of every item; one without any is never drawn.
            targets_V: how many training targets every item is.
            power: what the interactions are raised to.
            num_sampled: number S of drawn items.
            in_batch_share: share of them that are targets of the step.
        """
        super().__init__()
        items_C = np.flatnonzero(interactions_V)
        if not len(items_C):
            raise StageError("No item occurs in training, so there is nothing to sample from; use a longer log.")
        self.num_in_batch = round(num_sampled * in_batch_share)
        self.num_drawn = num_sampled - self.num_in_batch
        self.register_buffer("items_C", torch.from_numpy(items_C), persistent=False)
        self.register_buffer("cumulative_C", _cumulative(interactions_V[items_C] ** power), persistent=False)
        self.register_buffer("target_cumulative_C", _cumulative(targets_V[items_C]), persistent=False)

    def draw(self, targets_M: Tensor) -> Sample:
        """S items; those out of the step are left out where it has no target.

        As many as there are of them, targets of the step come without repetition.
        """
        device = self.items_C.device
        uniform_S = torch.rand(self.num_drawn, dtype=torch.float64, device=device)
        # The first item whose cumulative share is above the number; rounding must not lead behind the last.
        places_S = torch.searchsorted(self.cumulative_C, uniform_S, right=True).clamp(max=len(self.items_C) - 1)
        items_S = self.items_C[places_S]
        if self.num_in_batch and len(targets_M):
            shuffled_M = targets_M[torch.randperm(len(targets_M)).to(device)]
            own_S = shuffled_M[torch.arange(self.num_in_batch, device=device) % len(targets_M)]
            places_S = torch.cat([places_S, torch.searchsorted(self.items_C, own_S)])
            items_S = torch.cat([items_S, own_S])
        expected_S = self.num_drawn * _shares(self.cumulative_C, places_S)
        expected_S += self.num_in_batch * _shares(self.target_cumulative_C, places_S)
        return Sample(items_S, expected_S.log().float())


def _cumulative(weights_C: NDArray[np.floating] | NDArray[np.integer]) -> Tensor:
    sums_C = np.cumsum(weights_C, dtype=np.float64)
    return torch.from_numpy(sums_C / max(1e-300, sums_C[-1]))


def _shares(cumulative_C: Tensor, places_S: Tensor) -> Tensor:
    below_S = torch.where(places_S > 0, cumulative_C[(places_S - 1).clamp(min=0)], 0.0)
    return cumulative_C[places_S] - below_S
