"""The rank of a target among the whole catalogue, under both protocols.

B users of a chunk, L positions, D width, V catalogue, S seen items of all users in a chunk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.errors import StageError
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.rows import latest_rows
from sracl_dist.model.softmax import chunks

NOT_NUMBERS = "The model yields scores that are not numbers; train again with a lower train.learning_rate."


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Ranks [U] of the users' targets, from 1."""

    seen_kept: NDArray[np.int32]
    """1 + the number of other items that score at least as high."""
    seen_removed: NDArray[np.int32]
    """The same among items outside the user's context; V + 1 where the target itself is in the context."""


def rank_targets(
    encoder: SequenceEncoder, contexts: Sequence[NDArray[np.int32]], targets: NDArray[np.int32], device: torch.device
) -> Ranks:
    """Rank each user's target after its context; every context holds at least one item.

    Ties count against us. The encoder sees the latest items of a context only, but all of them count as seen.

    Raises:
        StageError: a score is not a number.
    """
    kept, removed = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for start, scores_BV, seen in catalogue_scores(encoder, contexts, device):
        kept_B, removed_B = _rank_chunk(scores_BV, seen, targets[start : start + len(scores_BV)])
        kept.append(kept_B)
        removed.append(removed_B)
    return Ranks(seen_kept=np.concatenate(kept), seen_removed=np.concatenate(removed))


@torch.no_grad()
def catalogue_scores(
    encoder: SequenceEncoder, contexts: Sequence[NDArray[np.int32]], device: torch.device
) -> Iterator[tuple[int, Tensor, tuple[Tensor, Tensor]]]:
    """Scores [B, V] of items 1..V after each context, chunk by chunk.

    Yields:
        index of the chunk's first row; scores; row [S] and column [S] of every item that a context holds.

    Raises:
        StageError: a score is not a number.
    """
    was_training = encoder.training
    encoder.eval()
    table_VD = encoder.catalogue()
    try:
        for piece in chunks(len(contexts), len(table_VD), device):
            chunk = contexts[piece]
            rows, seen = latest_rows(chunk, encoder.max_length).to(device), seen_pairs(chunk, device)
            scores_BV = encoder.scores(encoder(rows, table_VD)[rows.last_B], table_VD, seen)
            # A sum is a number only if all of its terms are, and takes one pass without a copy.
            if not bool(scores_BV.sum().isfinite()):
                raise StageError(NOT_NUMBERS)
            yield piece.start, scores_BV, seen
    finally:
        encoder.train(was_training)


def seen_pairs(contexts: Sequence[NDArray[np.int32]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row [S] and column [S] in a score matrix of every item that a row's context holds, each pair once."""
    items = np.concatenate([np.zeros(0, np.int64), *contexts]).astype(np.int64)
    width = int(items.max(initial=0)) + 1
    pairs = np.unique(np.repeat(np.arange(len(contexts)), [len(context) for context in contexts]) * width + items)
    return torch.from_numpy(pairs // width).to(device), torch.from_numpy(pairs % width - 1).to(device)


def _rank_chunk(
    scores_BV: Tensor, seen: tuple[Tensor, Tensor], targets: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    targets_B = torch.from_numpy(targets.astype(np.int64) - 1).to(scores_BV.device)
    target_scores_B = scores_BV.gather(1, targets_B[:, None]).squeeze(1)
    # The target reaches its own score, which makes the 1 of the rank.
    # Counting in int64, which is the default, takes seven times as long.
    kept_B = (scores_BV >= target_scores_B[:, None]).sum(dim=1, dtype=torch.int32)
    rows_S, columns_S = seen
    is_target_S = columns_S == targets_B[rows_S]
    ahead_S = (scores_BV[rows_S, columns_S] >= target_scores_B[rows_S]) & ~is_target_S
    removed_B = kept_B - torch.bincount(rows_S[ahead_S], minlength=len(kept_B))
    removed_B[rows_S[is_target_S]] = scores_BV.shape[1] + 1
    return kept_B.cpu().numpy().astype(np.int32), removed_B.cpu().numpy().astype(np.int32)
