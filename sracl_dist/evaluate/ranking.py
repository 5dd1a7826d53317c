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
from sracl_dist.model.inputs import last_states, right_padded

SCORES_PER_CHUNK = 8_000_000
"""Scores held at a time, 32 MB; the chunk's rows follow from the catalogue alone, so that results do too."""

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
    for start, scores_BV in catalogue_scores(encoder, contexts, device):
        rows = slice(start, start + len(scores_BV))
        kept_B, removed_B = _rank_chunk(scores_BV, contexts[rows], targets[rows])
        kept.append(kept_B)
        removed.append(removed_B)
    return Ranks(seen_kept=np.concatenate(kept), seen_removed=np.concatenate(removed))


@torch.no_grad()
def catalogue_scores(
    encoder: SequenceEncoder, contexts: Sequence[NDArray[np.int32]], device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Scores [B, V] of items 1..V after each context, chunk by chunk, each with the index of its first row.

    Raises:
        StageError: a score is not a number.
    """
    was_training = encoder.training
    encoder.eval()
    chunk_rows = max(1, min(1024, SCORES_PER_CHUNK // encoder.num_items))
    try:
        for start in range(0, len(contexts), chunk_rows):
            items_BL, lengths_B = right_padded(contexts[start : start + chunk_rows], encoder.max_length)
            states_BD = last_states(encoder(items_BL.to(device)), lengths_B.to(device))
            scores_BV = states_BD @ encoder.catalogue().T
            if bool(scores_BV.isnan().any()):
                raise StageError(NOT_NUMBERS)
            yield start, scores_BV
    finally:
        encoder.train(was_training)


def seen_pairs(contexts: Sequence[NDArray[np.int32]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Row [S] and column [S] in a score matrix of every item that a row's context holds, each pair once."""
    pairs = [(index, np.unique(context)) for index, context in enumerate(contexts)]
    rows = np.repeat(np.arange(len(pairs)), [len(items) for _, items in pairs])
    columns = np.concatenate([np.zeros(0, np.int64), *(items.astype(np.int64) for _, items in pairs)]) - 1
    return torch.from_numpy(rows).to(device), torch.from_numpy(columns).to(device)


def _rank_chunk(
    scores_BV: Tensor, contexts: Sequence[NDArray[np.int32]], targets: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    targets_B = torch.from_numpy(targets.astype(np.int64) - 1).to(scores_BV.device)
    target_scores_B = scores_BV.gather(1, targets_B[:, None]).squeeze(1)
    # The target reaches its own score, which makes the 1 of the rank.
    kept_B = (scores_BV >= target_scores_B[:, None]).sum(dim=1)
    rows_S, columns_S = seen_pairs(contexts, scores_BV.device)
    is_target_S = columns_S == targets_B[rows_S]
    ahead_S = (scores_BV[rows_S, columns_S] >= target_scores_B[rows_S]) & ~is_target_S
    removed_B = kept_B - torch.bincount(rows_S[ahead_S], minlength=len(kept_B))
    removed_B[rows_S[is_target_S]] = scores_BV.shape[1] + 1
    return kept_B.cpu().numpy().astype(np.int32), removed_B.cpu().numpy().astype(np.int32)
