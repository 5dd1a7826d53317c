"""The rank of a target among the whole catalogue, under both protocols.

B users of a chunk, I items of a tile, b blocks of a tile, S pairs of a user and an item of its history, P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.evaluate.scores import CatalogueScores, Chunk, above, below, block_items

PENDING_PAIRS = 1_000_000
"""Pairs that wait for their exact scores at most, beside those of one tile."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Ranks [U] of the users' targets, from 1."""

    seen_kept: NDArray[np.int32]
    """1 + the number of other items that score at least as high."""
    seen_removed: NDArray[np.int32]
    """The same among items outside the user's context; V + 1 where the target itself is in the context."""


@torch.no_grad()
def rank_targets(scores: CatalogueScores, contexts: Sequence[NDArray[np.int32]], targets: NDArray[np.int32]) -> Ranks:
    """Rank each user's target after its context; every context holds at least one item. Ties count against us.

    Raises:
        StageError: a score is not a number.
    """
    kept, removed = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    columns_U = torch.from_numpy(targets.astype(np.int64) - 1).to(scores.device)
    for chunk in scores.chunks(contexts):
        kept_B, removed_B = _rank_chunk(scores, chunk, columns_U[chunk.start : chunk.start + len(chunk)])
        kept.append(kept_B.cpu().numpy().astype(np.int32))
        removed.append(removed_B.cpu().numpy().astype(np.int32))
    return Ranks(seen_kept=np.concatenate(kept), seen_removed=np.concatenate(removed))


def _rank_chunk(scores: CatalogueScores, chunk: Chunk, targets_B: Tensor) -> tuple[Tensor, Tensor]:
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
    return kept_B, removed_B


def _count_at_least(scores: CatalogueScores, chunk: Chunk, threshold_B: Tensor) -> Tensor:
    """How many items [B] have an exact score, without the bias of repeats, of at least the threshold."""
    lowest_B = below(threshold_B - chunk.margin_B)
    """Products below it are certainly less than the threshold."""
    highest_B = above(threshold_B + chunk.margin_B)
    """Products from here on are certainly more."""
    count_B = torch.zeros(len(chunk), dtype=torch.int64, device=scores.device)
    pending: list[tuple[Tensor, Tensor]] = []

    def settle() -> None:
        users_P, columns_P = (torch.cat(part) for part in zip(*pending, strict=True))
        reaches_P = scores.exact(chunk, users_P, columns_P) >= threshold_B[users_P]
        count_B.add_(torch.bincount(users_P[reaches_P], minlength=len(chunk)))
        pending.clear()

    found = torch.empty(0, device=scores.device)
    for start, tile_BI in scores.tiles(chunk):
        found = found if found.shape == tile_BI.shape else torch.empty_like(tile_BI)
        width, block = tile_BI.shape[1], block_items(tile_BI)
        # Sums of ones are exact in float32.
        certain_b = torch.ge(tile_BI, highest_B[:, None], out=found).view(-1, block).sum(dim=1)
        possible_b = torch.ge(tile_BI, lowest_B[:, None], out=found).view(-1, block).sum(dim=1)
        count_B += certain_b.view(len(chunk), -1).sum(dim=1).long()
        blocks = (certain_b != possible_b).nonzero()[:, 0]
        if len(blocks):
            users, first = blocks * block // width, blocks * block % width + start
            near = tile_BI.view(-1, block)[blocks]
            rows_P, places_P = ((near >= lowest_B[users, None]) & (near < highest_B[users, None])).nonzero().unbind(1)
            pending.append((users[rows_P], first[rows_P] + places_P))
            if sum(len(part) for part, _ in pending) > PENDING_PAIRS:
                settle()
    if pending:
        settle()
    return count_B
