"""The next-item loss over a whole catalogue, as a sum, so that parts of a batch add up to the whole.

M positions, C candidates, F targets of a position, D width, R pairs of a position and an item of
its history.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

SCORES_PER_CHUNK = 1_200_000
"""Scores held at a time: few enough to stay in a processor's cache, where the chunk is written, read and used twice."""
GPU_SCORES_PER_CHUNK = 64_000_000
"""The same on a GPU, which needs large products to be busy."""
LEAST_ROWS = 32
"""Positions in a chunk at least: every chunk reads the whole catalogue, which fewer would not pay for."""


class Repeats(NamedTuple):
    """Candidates that a position's history holds already, and what is added to their scores."""

    rows_R: Tensor
    """Position of each pair, ascending."""
    columns_R: Tensor
    """Candidate of each pair; no pair twice."""
    bias: Tensor
    """Scalar."""


class LaterTargets(NamedTuple):
    """What follows behind the next item and is a target of the same position, with less weight."""

    targets_MF: Tensor
    """Index of each among the candidates; any where there is none."""
    weights_MF: Tensor
    """Weight beside the next item's 1; 0 where there is none."""


def full_softmax_loss(
    states_MD: Tensor,
    candidates_CD: Tensor,
    targets_M: Tensor,
    repeats: Repeats | None = None,
    later: LaterTargets | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Sum over positions of -log softmax(h E^T + repeats)[target].

    The scores are made, used for the loss and for all gradients, and forgotten, chunk by chunk of positions: nothing
    of size M x C is ever stored, and the memory does not grow with their product.

    Args:
        states_MD: states before each target.
        candidates_CD: embeddings of the candidates.
        targets_M: index of each target among the candidates.
        repeats: what is added to the scores of items in the history.
        later: further targets; the loss of a position is then the weighted mean over its targets.
        dtype: number format of the three products and of the scores and shares between them; what is summed over the
            catalogue or over positions is summed in float32.

    Returns:
        A scalar.
    """
    pairs = (None, None, None) if repeats is None else repeats
    targets_MF, weights_MF = targets_M[:, None], torch.ones(len(targets_M), 1, device=states_MD.device)
    if later is not None:
        targets_MF = torch.cat([targets_MF, later.targets_MF], dim=1)
        weights_MF = torch.cat([weights_MF, later.weights_MF], dim=1)
        weights_MF = weights_MF / weights_MF.sum(dim=1, keepdim=True)
    wants_gradient = torch.is_grad_enabled()
    # The formats are chosen one by one in here; autocast would make a softmax in bfloat16 float32 again.
    with torch.autocast(states_MD.device.type, enabled=False):
        loss: Tensor = _FullSoftmax.apply(
            states_MD, candidates_CD, targets_MF, weights_MF, *pairs, dtype, wants_gradient
        )
    return loss


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        states_MD: Tensor,
        candidates_CD: Tensor,
        targets_MF: Tensor,
        weights_MF: Tensor,
        rows_R: Tensor | None,
        columns_R: Tensor | None,
        bias: Tensor | None,
        dtype: torch.dtype,
        is_grad_enabled: bool,
    ) -> Tensor:
        # What an input needs does not say whether anybody will ask for it.
        wants_gradient = is_grad_enabled and any(context.needs_input_grad)
        states, candidates = states_MD.to(dtype), candidates_CD.to(dtype)
        # Sums over chunks are float32: in a format of two bytes they would lose the small ones.
        states_gradient = torch.empty_like(states_MD, dtype=torch.float32)
        candidates_gradient = torch.zeros_like(candidates_CD, dtype=torch.float32)
        bias_gradient, loss = torch.zeros(2, device=states.device).unbind()
        for chunk in chunks(len(states), len(candidates), states.device):
            targets, weights = targets_MF[chunk], weights_MF[chunk]
            scores = states[chunk] @ candidates.T
            pairs = _pairs_of(chunk, rows_R, columns_R)
            if bias is not None:
                scores[pairs] += bias.to(dtype)
            shares = torch.softmax(scores, dim=1)
            loss -= (weights * _log_shares(shares, scores, targets)).sum()
            if not wants_gradient:
                continue
            shares.scatter_add_(1, targets, -weights.to(dtype))
            bias_gradient += shares[pairs].float().sum()
            states_gradient[chunk] = shares @ candidates
            candidates_gradient += shares.T @ states[chunk]
        context.save_for_backward(states_gradient, candidates_gradient, bias_gradient)
        context.dtypes = (states_MD.dtype, candidates_CD.dtype)
        return loss

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_gradient, candidates_gradient, bias_gradient = context.saved_tensors
        states_dtype, candidates_dtype = context.dtypes
        factor = gradients[0]
        return (
            (factor * states_gradient).to(states_dtype),
            (factor * candidates_gradient).to(candidates_dtype),
            None,
            None,
            None,
            None,
            factor * bias_gradient if context.needs_input_grad[6] else None,
            None,
            None,
        )


def _log_shares(shares: Tensor, scores: Tensor, targets: Tensor) -> Tensor:
    """Logarithm of each target's share, in float32."""
    target_shares = shares.gather(1, targets).float()
    if bool((target_shares > torch.finfo(torch.float32).tiny).all()):
        return target_shares.log()
    # A share that rounds to 0, or has lost most of its digits on the way there, is found by that of the likeliest item.
    best_scores, best_shares = scores.amax(dim=1, keepdim=True).float(), shares.amax(dim=1, keepdim=True).float()
    return scores.gather(1, targets).float() - best_scores + best_shares.log()


def _pairs_of(chunk: slice, rows_R: Tensor | None, columns_R: Tensor | None) -> tuple[Tensor, Tensor]:
    """Row within the chunk, and column, of the pairs that lie in it."""
    if rows_R is None or columns_R is None:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none
    first, last = torch.searchsorted(rows_R, torch.tensor([chunk.start, chunk.stop], device=rows_R.device)).tolist()
    return rows_R[first:last] - chunk.start, columns_R[first:last]


def chunks(num_positions: int, num_candidates: int, device: torch.device) -> list[slice]:
    """Pieces of the positions, each with few enough scores; they follow from the candidates, not from the positions."""
    scores = SCORES_PER_CHUNK if device.type == "cpu" else GPU_SCORES_PER_CHUNK
    rows = max(LEAST_ROWS, scores // max(1, num_candidates))
    return [slice(start, min(start + rows, num_positions)) for start in range(0, num_positions, rows)]
