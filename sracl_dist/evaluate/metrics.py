"""HR, NDCG and MRR from ranks: one value per user first, then their mean.

U users.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (5, 10, 20)
METRICS = (*(f"hr@{cutoff}" for cutoff in CUTOFFS), *(f"ndcg@{cutoff}" for cutoff in CUTOFFS), "mrr")


def per_user_metrics(ranks_U: NDArray[np.integer], num_items: int) -> dict[str, NDArray[np.float64]]:
    """Every metric of every user.

    With one target at rank r: HR@n = 1 if r <= n else 0; NDCG@n = 1 / log2(r + 1) if r <= n else 0; MRR = 1 / r.

    Args:
        ranks_U: rank of each user's target, from 1; a rank above `num_items` says that the target was no candidate.
        num_items: catalogue size; a target that was no candidate counts 0 in every metric.

    Returns:
        [U] per name of METRICS.
    """
    values = dict(_each_metric(ranks_U, num_items))
    return {name: values[name] for name in METRICS}


def mean_metrics(ranks_U: NDArray[np.integer], num_items: int) -> dict[str, float]:
    """Means over users; 0 where there is none. Arguments as in `per_user_metrics`."""
    # One metric after the other, since those of all users together would be the largest part of a validation's memory.
    means = {name: float(value_U.sum() / max(1, len(ranks_U))) for name, value_U in _each_metric(ranks_U, num_items)}
    return {name: means[name] for name in METRICS}


def _each_metric(ranks_U: NDArray[np.integer], num_items: int) -> Iterator[tuple[str, NDArray[np.float64]]]:
    ranks_U = ranks_U.astype(np.float64)
    found_U = ranks_U <= num_items
    gain_U = 1.0 / np.log2(ranks_U + 1.0)
    for cutoff in CUTOFFS:
        hit_U = found_U & (ranks_U <= cutoff)
        yield f"hr@{cutoff}", hit_U.astype(np.float64)
        yield f"ndcg@{cutoff}", np.where(hit_U, gain_U, 0.0)
    yield "mrr", np.where(found_U, 1.0 / ranks_U, 0.0)
