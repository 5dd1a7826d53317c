"""Numbers that describe a prepared log, for the manifest and the report."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 100_000)


def statistics(
    lengths: NDArray[np.integer], popularity: NDArray[np.integer], time_range: list[int] | None
) -> dict[str, Any]:
    """Sizes, density, sequence lengths and item popularity.

    Args:
        lengths: [U] interactions of each user.
        popularity: [V] interactions of each item.
        time_range: earliest and latest time, or None where there are no times.
    """
    num_interactions = int(lengths.sum(dtype=np.int64))
    return {
        "users": len(lengths),
        "items": len(popularity),
        "interactions": num_interactions,
        "density": num_interactions / (len(lengths) * len(popularity)),
        "sequence_length": _summary(lengths),
        "item_popularity": _summary(popularity),
        "sequence_length_histogram": histogram(lengths),
        "item_popularity_histogram": histogram(popularity),
        "time_range": time_range,
    }


def histogram(counts: NDArray[np.integer]) -> list[dict[str, int | None]]:
    """How many counts lie in each bin `from` .. `to`, both included; the bin behind all edges has no end."""
    edges = np.array([*_EDGES, np.iinfo(np.int64).max])
    # Counting each number up to the last edge is ten times as fast as sorting them into the bins.
    each = np.bincount(np.minimum(counts, _EDGES[-1]), minlength=_EDGES[-1] + 1)
    numbers = np.add.reduceat(each, edges[:-1])
    bins: list[dict[str, int | None]] = []
    for index in range(int(np.flatnonzero(numbers)[-1]) + 1):
        is_last = index == len(_EDGES) - 1
        end = None if is_last else int(edges[index + 1]) - 1
        bins.append({"from": int(edges[index]), "to": end, "count": int(numbers[index])})
    return bins


def _summary(counts: NDArray[np.integer]) -> dict[str, float]:
    return {
        "mean": round(float(counts.mean()), 3),
        "median": float(np.median(counts)),
        "min": int(counts.min()),
        "max": int(counts.max()),
    }
