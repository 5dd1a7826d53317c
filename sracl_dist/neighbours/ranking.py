"""From candidates to neighbours: scored pair by pair, self out, ties in order, nothing by chance.

Matrix products give the same pair slightly different values in different places of a block, so candidates are scored
again pair by pair; equal vectors then have equal scores, and ties go to the lower key.

n queries, c candidates, k neighbours, d width.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import MISSING

SCORE_TOLERANCE = 1e-5
"""How far a float32 matrix product of unit vectors may lie from the pair's own score."""
ROWS_AT_ONCE = 1024
"""Queries whose candidates are scored together; their vectors should stay in the cache."""

Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Keys [n, k] by falling score, ties by rising key, MISSING at the end, and scores [n, k], -inf there."""


def pair_scores(
    queries: NDArray[np.float32], vectors: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Inner product [n, c] of each query with each of its rows of `vectors`, summed in float64."""
    scores = np.empty(rows.shape, np.float32)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        piece = slice(start, start + ROWS_AT_ONCE)
        wide = queries[piece].astype(np.float64)
        for column in range(rows.shape[1]):
            gathered = vectors[rows[piece, column]]
            scores[piece, column] = np.einsum("nd,nd->n", gathered, wide, dtype=np.float64)
    return scores


def rank(keys: NDArray[np.int64], scores: NDArray[np.float32], num_neighbours: int) -> Ranked:
    """The best of each row's candidates; -inf marks one that does not count."""
    order_keys = np.where(np.isneginf(scores), np.iinfo(np.int64).max, keys)
    best = np.lexsort((order_keys, -scores), axis=1)[:, :num_neighbours]
    chosen_scores = np.take_along_axis(scores, best, axis=1)
    chosen = np.where(np.isneginf(chosen_scores), MISSING, np.take_along_axis(keys, best, axis=1))
    padding = ((0, 0), (0, num_neighbours - chosen.shape[1]))
    return (
        np.pad(chosen, padding, constant_values=MISSING),
        np.pad(chosen_scores, padding, constant_values=-np.inf),
    )


def rank_nothing(num_queries: int, num_neighbours: int) -> Ranked:
    """Lists without anybody, to be filled."""
    shape = (num_queries, num_neighbours)
    return np.full(shape, MISSING, np.int64), np.full(shape, -np.inf, np.float32)


def merge(found: Sequence[Ranked]) -> Ranked:
    """Neighbours over all parts, each of which has given its own."""
    if len(found) == 1:
        return found[0]
    keys = np.concatenate([part_keys for part_keys, _ in found], axis=1)
    scores = np.concatenate([part_scores for _, part_scores in found], axis=1)
    return rank(keys, scores, found[0][0].shape[1])
