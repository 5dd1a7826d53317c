"""Recall of neighbour lists against a search among all vectors without an index."""

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import MISSING
from sracl_dist.neighbours.ranking import Ranked

TOLERANCE = 1e-6
"""Scores closer than this count as ties, so that either of two equal neighbours is right."""


def sample_rows(num_rows: int, num_sampled: int, seed: int) -> NDArray[np.int64]:
    """Rising rows that are looked at."""
    return np.sort(np.random.default_rng(seed).permutation(num_rows)[:num_sampled])


def recall(found: Ranked, true: Ranked) -> float:
    """Share of the true neighbours that the lists have.

    Args:
        found: lists [n, k] to be judged.
        true: lists [n, k] of the same rows by exact search.
    """
    (found_keys, found_scores), (true_keys, true_scores) = found, true
    is_true = true_keys != MISSING
    if not is_true.any():
        return 1.0
    is_found = found_keys != MISSING
    in_list = (found_keys[:, :, None] == true_keys[:, None, :]).any(axis=2)
    lowest = np.where(is_true, true_scores, np.inf).min(axis=1, keepdims=True)
    right = is_found & (in_list | (found_scores >= lowest - TOLERANCE))
    return float(min(right.sum() / is_true.sum(), 1.0))
