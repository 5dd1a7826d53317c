"""From the candidates of every part to the final neighbours of a block: self out, ties in order, nothing by chance.

Matrix products give the same pair slightly different values in different places of a block, so candidates are scored
again pair by pair; equal vectors then have equal scores, and ties go to the lower key.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import MISSING

SCORE_TOLERANCE = 1e-5
"""How far a float32 matrix product of unit vectors may lie from the pair's own score."""


def select_neighbours(
    query_keys: NDArray[np.int64],
    queries: NDArray[np.float32],
    candidates: NDArray[np.int64],
    vectors: NDArray[np.float32],
    first_key: int,
    num_neighbours: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Choose the best `num_neighbours` of each row's candidates.

    Args:
        query_keys: [n] keys of the queries, which are left out of their own rows.
        queries: [n, d] their vectors.
        candidates: [n, c] distinct keys of candidates, `MISSING` allowed.
        vectors: [N, d] all vectors, row i with key `first_key + i`.
        first_key: key of the first row of `vectors`.
        num_neighbours: k.

    Returns:
        keys [n, k] by falling score, ties by rising key, and scores [n, k], -inf where missing.
    """
    absent = (candidates == MISSING) | (candidates == query_keys[:, None])
    rows = np.where(absent, 0, candidates - first_key)
    wide = queries.astype(np.float64)
    scores = np.empty(candidates.shape, np.float32)
    for column in range(candidates.shape[1]):  # one column at a time keeps the gathered vectors small
        scores[:, column] = np.einsum("nd,nd->n", vectors[rows[:, column]].astype(np.float64), wide)
    scores[absent] = -np.inf
    keys = np.where(absent, np.iinfo(np.int64).max, candidates)
    order = np.lexsort((keys, -scores), axis=1)
    width = min(num_neighbours, candidates.shape[1])
    best = order[:, :width]
    chosen, chosen_scores = np.take_along_axis(keys, best, axis=1), np.take_along_axis(scores, best, axis=1)
    chosen = np.where(np.isneginf(chosen_scores), MISSING, chosen)
    padding = ((0, 0), (0, num_neighbours - width))
    return np.pad(chosen, padding, constant_values=MISSING), np.pad(chosen_scores, padding, constant_values=-np.inf)


def unsettled_rows(scores: NDArray[np.float32], worst: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
    """Rows whose last neighbour ties with the worst candidate of a part, so that the part may hold more of its like.

    Args:
        scores: [n, k] of the chosen neighbours.
        worst: for every part that was not seen whole, the score [n] of its worst candidate.
    """
    if not worst:
        return np.empty(0, np.int64)
    return np.flatnonzero(scores[:, -1] - np.max(worst, axis=0) <= 2 * SCORE_TOLERANCE)
