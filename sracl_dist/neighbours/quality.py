"""Recall of a neighbour table against an exact search by plain numpy on a sample of its rows."""

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-6
"""Scores closer than this count as ties, so that either of two equal neighbours is right."""
BLOCK_ROWS = 65_536


def sampled_recall(
    neighbours: NDArray[np.int64], vectors: NDArray[np.float32], first_key: int, num_sampled: int, seed: int
) -> dict[str, float]:
    """Share of the sampled rows' true k nearest that the table has.

    Args:
        neighbours: [n, k] keys, -1 where missing.
        vectors: [n, d] unit vectors, row i with key `first_key + i`.
        first_key: key of the first row.
        num_sampled: rows to check at most.
        seed: chooses them.
    """
    num_rows = len(vectors)
    sample = np.sort(np.random.default_rng(seed).permutation(num_rows)[:num_sampled])
    width = min(neighbours.shape[1], num_rows - 1)
    if width == 0:
        return {"recall": 1.0, "num_sampled": len(sample)}
    queries = vectors[sample].astype(np.float64)
    best = np.full((len(sample), width), -np.inf)
    for start in range(0, num_rows, BLOCK_ROWS):
        scores = queries @ vectors[start : start + BLOCK_ROWS].T.astype(np.float64)
        own = (sample >= start) & (sample < start + BLOCK_ROWS)
        scores[np.flatnonzero(own), sample[own] - start] = -np.inf
        best = np.sort(np.concatenate([best, scores], axis=1), axis=1)[:, -width:]
    found = neighbours[sample, :width]
    rows = np.where(found < first_key, 0, found - first_key)
    found_scores = np.einsum("nkd,nd->nk", vectors[rows].astype(np.float64), queries)
    right = (found >= first_key) & (found_scores >= best[:, :1] - TOLERANCE)
    return {"recall": float(right.mean()), "num_sampled": len(sample)}
