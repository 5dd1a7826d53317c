"""The rank of a target among the whole catalogue, under both protocols.

I items of a tile, B users of a chunk, b blocks of a user's column of a tile, S pairs of a user and an item of its
history, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.evaluate.blocks import WaitingBlocks, in_blocks
from sracl_dist.evaluate.scores import CatalogueScores, Chunk, above, below


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Ranks [U] of the users' targets, from 1."""

    seen_kept: NDArray[np.int32]
    """1 + the number of other items that score at least as high."""
    seen_removed: NDArray[np.int32]
    """The same among items outside the user's context; V + 1 where the target itself is in the context."""


def rank_targets(scores: CatalogueScores, contexts: Sequence[NDArray[np.int32]], targets: NDArray[np.int32]) -> Ranks:
    """Rank each user's target after its context; every context holds at least one item. Ties count against us.

    Raises:
        StageError: a score is not a number.
    """
    columns_U = torch.from_numpy(targets.astype(np.int64) - 1).to(scores.device)
    ranks = scores.for_chunks(
        contexts, lambda chunk: _rank_chunk(scores, chunk, columns_U[chunk.start : chunk.start + len(chunk)])
    )
    none = np.zeros(0, np.int32)
    return Ranks(
        seen_kept=np.concatenate([none, *(kept for kept, _ in ranks)]),
        seen_removed=np.concatenate([none, *(removed for _, removed in ranks)]),
    )


def _rank_chunk(
    scores: CatalogueScores, chunk: Chunk, targets_B: Tensor
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Ranks [B] with the seen items kept, and removed."""
    users_S, columns_S = chunk.seen_pairs
    is_target_S = columns_S == targets_B[users_S]
    repeats_B = torch.zeros_like(targets_B, dtype=torch.bool)
    repeats_B[users_S[is_target_S]] = True
    threshold_B = scores.exact(chunk, torch.arange(len(chunk), device=scores.device), targets_B)
    threshold_B += scores.repeat_bias * repeats_B
    scores_S = scores.exact(chunk, users_S, columns_S)
    # Among all items, without the bias of repeats; then the seen ones are taken out, and put in again with it.
    ahead_B = _count_at_least(scores, chunk, threshold_B)
    ahead_B -= torch.bincount(users_S[scores_S >= threshold_B[users_S]], minlength=len(chunk))
    # A target that is new reaches its own score, which makes the 1 of the rank.
    removed_B = ahead_B + repeats_B
    is_ahead_S = (scores_S + scores.repeat_bias >= threshold_B[users_S]) & ~is_target_S
    kept_B = removed_B + torch.bincount(users_S[is_ahead_S], minlength=len(chunk))
    removed_B[repeats_B] = scores.num_items + 1
    return kept_B.cpu().numpy().astype(np.int32), removed_B.cpu().numpy().astype(np.int32)


def _count_at_least(scores: CatalogueScores, chunk: Chunk, threshold_B: Tensor) -> Tensor:
    """How many items [B] have an exact score, without the bias of repeats, of at least the threshold."""
    lowest_B = below(threshold_B - chunk.margin_B)
    """Products below it are certainly less than the threshold."""
    highest_B = above(threshold_B + chunk.margin_B)
    """Products from here on are certainly more."""
    count_B = torch.zeros(len(chunk), dtype=torch.int64, device=scores.device)
    waiting = WaitingBlocks()

    def settle() -> None:
        users_P, columns_P, _ = waiting.take(lowest_B, highest_B)
        reaches_P = scores.exact(chunk, users_P, columns_P) >= threshold_B[users_P]
        count_B.add_(torch.bincount(users_P[reaches_P], minlength=len(chunk)))

    found = torch.empty(0, device=scores.device)
    for start, tile_IB in scores.tiles(chunk):
        found = found if found.shape == tile_IB.shape else torch.empty_like(tile_IB)
        # Comparing is several times as fast in float32 as in bool, and sums of ones are exact in it.
        certain_bB = in_blocks(torch.ge(tile_IB, highest_B, out=found)).sum(dim=1)
        possible_bB = in_blocks(torch.ge(tile_IB, lowest_B, out=found)).sum(dim=1)
        count_B += certain_bB.sum(dim=0).long()
        waiting.add(start, tile_IB, certain_bB != possible_bB)
        if waiting.are_many:
            settle()
    settle()
    return count_B
