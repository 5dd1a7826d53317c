"""The next-item loss over a whole catalogue, as a sum, so that parts of a batch add up to the whole.

M positions, C candidates, F targets of a position, D width, R pairs of a position and an item of
its history.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

SCORES_PER_CHUNK = 1_200_000
"""Scores held at a time: few enough to stay in a processor's cache, where the chunk is written, read and used twice."""
GPU_SCORES_PER_CHUNK = 64_000_000
"""The same on a GPU, which needs large products to be busy."""
LEAST_ROWS = 32
"""Positions whose scores of all candidates must fit into a chunk, or the candidates are cut into tiles as well."""
TILE_ROWS = 512
"""Positions of a tile."""


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
    of size M x C is ever stored. A large catalogue is cut as well, into tiles, and gone through twice, for the sum
    below the fraction bar and for the gradients: beside the gradients themselves, which are as large as states and
    candidates, the memory grows with neither number.

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
        bias_gradient, loss = torch.zeros(2, device=states_MD.device).unbind()
        work = _Work(
            states=states_MD.to(dtype),
            candidates=candidates_CD.to(dtype),
            targets_MF=targets_MF,
            weights_MF=weights_MF,
            repeats=None if rows_R is None or columns_R is None or bias is None else Repeats(rows_R, columns_R, bias),
            # What an input needs does not say whether anybody will ask for it.
            wants_gradient=is_grad_enabled and any(context.needs_input_grad),
            # Sums over chunks are float32: in a format of two bytes they would lose the small ones.
            states_gradient=torch.zeros_like(states_MD, dtype=torch.float32),
            candidates_gradient=torch.zeros_like(candidates_CD, dtype=torch.float32),
            bias_gradient=bias_gradient,
            loss=loss,
        )
        num_positions, num_candidates = len(states_MD), len(candidates_CD)
        if LEAST_ROWS * num_candidates <= scores_per_chunk(states_MD.device):
            for chunk in chunks(num_positions, num_candidates, states_MD.device):
                _add_whole_rows(work, chunk)
        else:
            for chunk in _pieces(num_positions, TILE_ROWS):
                _add_tiled_rows(work, chunk)
        context.save_for_backward(work.states_gradient, work.candidates_gradient, bias_gradient)
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


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a softmax is made of, and the sums that chunk after chunk is added to."""

    states: Tensor
    candidates: Tensor
    targets_MF: Tensor
    weights_MF: Tensor
    repeats: Repeats | None
    wants_gradient: bool
    states_gradient: Tensor
    candidates_gradient: Tensor
    bias_gradient: Tensor
    loss: Tensor

    def scores(self, chunk: slice, tile: slice) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Scores of some positions and candidates, and those of the repeats that lie among them."""
        scores = self.states[chunk] @ self.candidates[tile].T
        pairs = _pairs_of(chunk, tile, self.repeats)
        if self.repeats is not None:
            scores[pairs] += self.repeats.bias.to(scores.dtype)
        return scores, pairs

    def add_gradients(self, chunk: slice, tile: slice, errors: Tensor, pairs: tuple[Tensor, Tensor]) -> None:
        """Add what follows from the derivatives of the loss by some scores."""
        self.bias_gradient.add_(errors[pairs].float().sum())
        self.states_gradient[chunk] += errors @ self.candidates[tile]
        self.candidates_gradient[tile] += errors.T @ self.states[chunk]


def _add_whole_rows(work: _Work, chunk: slice) -> None:
    """Some positions with all candidates at once."""
    everything = slice(0, len(work.candidates))
    targets, weights = work.targets_MF[chunk], work.weights_MF[chunk]
    scores, pairs = work.scores(chunk, everything)
    shares = torch.softmax(scores, dim=1)
    work.loss.sub_((weights * _log_shares(shares, scores, targets)).sum())
    if work.wants_gradient:
        shares.scatter_add_(1, targets, -weights.to(shares.dtype))
        work.add_gradients(chunk, everything, shares, pairs)


def _add_tiled_rows(work: _Work, chunk: slice) -> None:
    """Some positions, with one tile of the candidates after the other: first for the sum, then for the gradients."""
    targets, weights = work.targets_MF[chunk], work.weights_MF[chunk]
    tiles = _pieces(len(work.candidates), max(1, scores_per_chunk(targets.device) // len(targets)))
    largest = torch.full((len(targets), 1), float("-inf"), device=targets.device)
    total, target_scores = torch.zeros_like(largest), torch.zeros_like(weights)
    for tile in tiles:
        scores = work.scores(chunk, tile)[0].float()
        is_inside = (targets >= tile.start) & (targets < tile.stop)
        found = scores.gather(1, (targets - tile.start).clamp(0, scores.shape[1] - 1))
        target_scores = torch.where(is_inside, found, target_scores)
        before, largest = largest, torch.maximum(largest, scores.amax(dim=1, keepdim=True))
        total = total * (before - largest).exp() + scores.sub_(largest).exp_().sum(dim=1, keepdim=True)
    log_total = total.log() + largest
    work.loss.add_((weights * (log_total - target_scores)).sum())
    if not work.wants_gradient:
        return
    for tile in tiles:
        scores, pairs = work.scores(chunk, tile)
        shares = scores.float().sub_(log_total).exp_()
        is_inside = (targets >= tile.start) & (targets < tile.stop)
        places = (targets - tile.start).clamp(0, shares.shape[1] - 1)
        shares.scatter_add_(1, places, torch.where(is_inside, -weights, 0.0))
        work.add_gradients(chunk, tile, shares.to(work.states.dtype), pairs)


def _log_shares(shares: Tensor, scores: Tensor, targets: Tensor) -> Tensor:
    """Logarithm of each target's share, in float32."""
    target_shares = shares.gather(1, targets).float()
    if bool((target_shares > torch.finfo(torch.float32).tiny).all()):
        return target_shares.log()
    # A share that rounds to 0, or has lost most of its digits on the way there, is found by that of the likeliest item.
    best_scores, best_shares = scores.amax(dim=1, keepdim=True).float(), shares.amax(dim=1, keepdim=True).float()
    return scores.gather(1, targets).float() - best_scores + best_shares.log()


def _pairs_of(chunk: slice, tile: slice, repeats: Repeats | None) -> tuple[Tensor, Tensor]:
    """Row within the chunk, and column within the tile, of the repeats that lie in both."""
    if repeats is None:
        none = torch.zeros(0, dtype=torch.int64)
        return none, none
    ends = torch.tensor([chunk.start, chunk.stop], device=repeats.rows_R.device)
    first, last = torch.searchsorted(repeats.rows_R, ends).tolist()
    rows, columns = repeats.rows_R[first:last] - chunk.start, repeats.columns_R[first:last]
    is_inside = (columns >= tile.start) & (columns < tile.stop)
    return rows[is_inside], columns[is_inside] - tile.start


def chunks(num_positions: int, num_candidates: int, device: torch.device) -> list[slice]:
    """Pieces of the positions, each with few enough scores; they follow from the candidates, not from the positions."""
    rows = max(LEAST_ROWS, scores_per_chunk(device) // max(1, num_candidates))
    return _pieces(num_positions, rows)


def scores_per_chunk(device: torch.device) -> int:
    """Scores that are held at a time."""
    return SCORES_PER_CHUNK if device.type == "cpu" else GPU_SCORES_PER_CHUNK


def _pieces(num: int, length: int) -> list[slice]:
    return [slice(start, min(start + length, num)) for start in range(0, num, length)]
