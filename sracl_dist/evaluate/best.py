"""The best items of the whole catalogue for every user: a running list over tiles of items.

I items of a tile, B users of a chunk, b blocks of a user's column of a tile, S pairs of a user and an item of its
history, P pairs, N length of a list.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.evaluate.blocks import WaitingBlocks, in_blocks
from sracl_dist.evaluate.scores import CatalogueScores, Chunk, below

PENDING_PER_PLACE = 4
"""Candidates that wait to be compared with the lists, for every place in them: more, and the lists' last scores lie
behind; fewer, and the lists are made too often."""

GROUPS_PER_PLACE = 6
"""Groups of items of a tile for every place of a list, of which the largest products say what a list will reach."""
EXPECTING_TILES = 8
"""Tiles at first whose largest products say what the lists will reach; later few items do."""


@dataclass(frozen=True, kw_only=True)
class Best:
    """Lists of users, one after the other, each best first."""

    items: NDArray[np.int64]
    scores: NDArray[np.float32]
    lengths: NDArray[np.int64]
    """Of every user's list."""


def best_items(
    scores: CatalogueScores, histories: Sequence[NDArray[np.int32]], num_best: int, *, remove_seen: bool
) -> Best:
    """For each history the items 1..V that score highest, fewer where there are no more; ties go to the lower item.

    Raises:
        StageError: a score is not a number.
    """
    parts = scores.for_chunks(histories, lambda chunk: _Lists(scores, chunk, num_best, remove_seen=remove_seen).run())
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
        self._most_pending = PENDING_PER_PLACE * self._num_best * len(chunk)
        self._waiting = WaitingBlocks(self._most_pending)
        self._pending: list[tuple[Tensor, Tensor, Tensor]] = []
        """User, column and product of candidates."""
        self._worst_B = torch.full((len(chunk),), -torch.inf, dtype=torch.float64, device=scores.device)
        """No list can end with less than this."""
        self._products_BN = torch.zeros(len(chunk), 0, device=scores.device)
        """Large products of the first tiles, each with another item."""
        if not remove_seen:
            users_S, columns_S = chunk.seen_pairs
            self._merge(users_S, columns_S, scores.exact(chunk, users_S, columns_S) + scores.repeat_bias)

    def run(self) -> Best:
        """Look at all items."""
        for index, (start, tile_IB) in enumerate(self._scores.tiles(self._chunk)):
            if index < EXPECTING_TILES:
                self._expect(start, tile_IB)
            self._waiting.add(start, tile_IB, in_blocks(tile_IB).amax(dim=1) >= self._lowest())
            if self._waiting.are_many:
                self._pick()
        self._pick()
        self._settle()
        values = self._scores_P.float().cpu().numpy()
        lengths_B = torch.bincount(self._users_P, minlength=len(self._chunk))
        return Best(items=self._columns_P.cpu().numpy() + 1, scores=values, lengths=lengths_B.cpu().numpy())

    def _expect(self, start: int, tile_IB: Tensor) -> None:
        """Learn from a tile what the lists will reach, so that not all of its items are candidates."""
        users_S, columns_S = self._chunk.seen_pairs
        inside_S = (columns_S >= start) & (columns_S < start + len(tile_IB))
        tile_IB[columns_S[inside_S] - start, users_S[inside_S]] = -torch.inf
        both = torch.cat([self._products_BN, _largest(tile_IB, self._num_best)], dim=1)
        self._products_BN = both.topk(min(self._num_best, both.shape[1]), dim=1, sorted=False).values
        if self._products_BN.shape[1] == self._num_best:
            reached_B = self._products_BN.amin(dim=1).double() - self._chunk.margin_B
            self._worst_B = torch.maximum(self._worst_B, reached_B)

    def _lowest(self) -> Tensor:
        """Products below it are certainly of no item in a list."""
        return below(self._worst_B - self._chunk.margin_B)

    def _pick(self) -> None:
        self._pending.append(self._waiting.take(self._lowest()))
        if sum(len(users_P) for users_P, _, _ in self._pending) > self._most_pending:
            self._settle()

    def _settle(self) -> None:
        if not self._pending:
            return
        users_P, columns_P, products_P = (torch.cat(part) for part in zip(*self._pending, strict=True))
        self._pending.clear()
        is_candidate_P = (products_P >= self._lowest()[users_P]) & ~self._chunk.is_seen(users_P, columns_P)
        users_P, columns_P = users_P[is_candidate_P], columns_P[is_candidate_P]
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


def _largest(tile_IB: Tensor, num_best: int) -> Tensor:
    """Products of each user with different items, several times `num_best` where there are so many, mostly the largest.

    They are the largest of groups, which takes a fraction of the time of finding the largest of all.
    """
    num_items, num_users = tile_IB.shape
    most = max(1, num_items // (GROUPS_PER_PLACE * num_best))
    group = math.gcd(num_items, 1 << most.bit_length() - 1)
    return tile_IB.view(-1, group, num_users).amax(dim=1).T
