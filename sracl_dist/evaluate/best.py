"""The best items of the whole catalogue for every user: a running list over tiles of items.

B users of a chunk, I items of a tile, S pairs of a user and an item of its history, P pairs, N length of a list.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.evaluate.scores import CatalogueScores, Chunk, below

PENDING_PER_PLACE = 4
"""Candidates that wait to be compared with the lists, for every place in them: more, and the lists' last scores lie
behind; fewer, and the lists are made too often."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """Lists of users, one after the other, each best first."""

    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    lengths: NDArray[np.int64]
    """Of every user's list."""


@torch.no_grad()
def best_items(
    scores: CatalogueScores, histories: Sequence[NDArray[np.int32]], num_best: int, *, remove_seen: bool
) -> Best:
    """For each history the items 1..V that score highest, fewer where there are no more; ties go to the lower item.

    Raises:
        StageError: a score is not a number.
    """
    parts = [_Lists(scores, chunk, num_best, remove_seen=remove_seen).run() for chunk in scores.chunks(histories)]
    return Best(
        items=np.concatenate([np.zeros(0, np.int64), *(part.items for part in parts)]),
        scores=np.concatenate([np.zeros(0, np.float32), *(part.scores for part in parts)]),
        lengths=np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)]),
    )


class _Lists:
    """The lists of a chunk's users, as pairs, and the pairs that wait to be compared with them."""

    def __init__(self, scores: CatalogueScores, chunk: Chunk, num_best: int, *, remove_seen: bool) -> None:
        self._scores, self._chunk = scores, chunk
        self._num_best = min(num_best, scores.num_items)
        none = torch.zeros(0, dtype=torch.int64, device=scores.device)
        self._users_P, self._columns_P, self._scores_P = none, none, none.double()
        self._pending: list[tuple[Tensor, Tensor]] = []
        self._worst_B = torch.full((len(chunk),), -torch.inf, dtype=torch.float64, device=scores.device)
        """No list can end with less than this."""
        if not remove_seen:
            users_S, columns_S = chunk.seen_pairs
            self._merge(users_S, columns_S, scores.exact(chunk, users_S, columns_S) + scores.repeat_bias)

    def run(self) -> Best:
        """Look at all items."""
        mask = torch.empty(0, device=self._scores.device)
        for start, tile_BI in self._scores.tiles(self._chunk):
            if start == 0:
                self._expect(tile_BI)
            mask = mask if mask.shape == tile_BI.shape else torch.empty_like(tile_BI)
            self._take(start, tile_BI, mask)
        self._settle()
        values = self._scores_P.float().cpu().numpy()
        lengths_B = torch.bincount(self._users_P, minlength=len(self._chunk))
        return Best(items=self._columns_P.cpu().numpy() + 1, scores=values, lengths=lengths_B.cpu().numpy())

    def _expect(self, tile_BI: Tensor) -> None:
        """Learn from the first tile what the lists will reach, so that not all of its items are candidates."""
        if self._num_best > tile_BI.shape[1]:
            return
        users_S, columns_S = self._chunk.seen_pairs
        inside_S = columns_S < tile_BI.shape[1]
        tile_BI[users_S[inside_S], columns_S[inside_S]] = -torch.inf
        reached_B = tile_BI.topk(self._num_best, dim=1).values[:, -1].double()
        self._worst_B = torch.maximum(self._worst_B, reached_B - self._chunk.margin_B)

    def _take(self, start: int, tile_BI: Tensor, mask: Tensor) -> None:
        lowest_B1 = below(self._worst_B - self._chunk.margin_B)[:, None]
        # See `_count_at_least` in ranking.py for why the mask is float32.
        users = torch.ge(tile_BI, lowest_B1, out=mask).sum(dim=1).nonzero()[:, 0]
        if not len(users):
            return
        rows_P, columns_P = (tile_BI[users] >= lowest_B1[users]).nonzero().unbind(1)
        self._pending.append((users[rows_P], columns_P + start))
        if sum(len(part) for part, _ in self._pending) > PENDING_PER_PLACE * self._num_best * len(self._chunk):
            self._settle()

    def _settle(self) -> None:
        if not self._pending:
            return
        users_P, columns_P = (torch.cat(part) for part in zip(*self._pending, strict=True))
        self._pending.clear()
        is_new_P = ~self._chunk.is_seen(users_P, columns_P)
        users_P, columns_P = users_P[is_new_P], columns_P[is_new_P]
        self._merge(users_P, columns_P, self._scores.exact(self._chunk, users_P, columns_P))

    def _merge(self, users_P: Tensor, columns_P: Tensor, scores_P: Tensor) -> None:
        """Lists out of the lists and other pairs."""
        users_P = torch.cat([self._users_P, users_P])
        columns_P = torch.cat([self._columns_P, columns_P])
        scores_P = torch.cat([self._scores_P, scores_P])
        order_P = columns_P.argsort()
        order_P = order_P[scores_P[order_P].argsort(descending=True, stable=True)]
        order_P = order_P[users_P[order_P].argsort(stable=True)]
        sorted_P = users_P[order_P]
        length_B = torch.bincount(sorted_P, minlength=len(self._chunk))
        first_B = length_B.cumsum(0) - length_B
        is_kept_P = torch.arange(len(sorted_P), device=sorted_P.device) - first_B[sorted_P] < self._num_best
        order_P = order_P[is_kept_P]
        self._users_P, self._columns_P, self._scores_P = users_P[order_P], columns_P[order_P], scores_P[order_P]
        is_full_B = length_B >= self._num_best
        last_B = (length_B.clamp(max=self._num_best).cumsum(0) - 1)[is_full_B]
        self._worst_B[is_full_B] = torch.maximum(self._worst_B[is_full_B], self._scores_P[last_B])
