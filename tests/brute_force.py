"""The definition of a neighbour table, pair by pair, in plain numpy."""

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import MISSING


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Vectors of length 1; zero ones stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)


def brute_force(
    vectors: NDArray[np.float32],
    first_key: int,
    k: int,
    *,
    min_score: float = -np.inf,
    max_score: float = np.inf,
    groups: list[str] | None = None,
) -> tuple[list[list[int]], list[list[float]]]:
    """Others by falling score, ties by rising key; those that break a rule left out."""
    keys, scores = [], []
    wide = vectors.astype(np.float64)
    for row, query in enumerate(wide):
        pairs = []
        for at, other in enumerate(wide):
            score = float(np.float32((query * other).sum()))
            same_group = groups is None or not groups[row] or groups[row] == groups[at]
            if at != row and min_score <= score <= max_score and same_group:
                pairs.append((-score, first_key + at))
        best = sorted(pairs)[:k]
        keys.append([key for _, key in best] + [MISSING] * (k - len(best)))
        scores.append([-score for score, _ in best] + [-np.inf] * (k - len(best)))
    return keys, scores
