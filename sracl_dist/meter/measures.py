"""Measures of vectors and texts of n rows. Each tells what a random ranking would get, where there is such a thing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 1024
TIE = 1e-6
"""Cosines closer than this are equal: those of equal texts differ in the last digits."""
OPENING_WORDS = 3


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number, and what chance would make of it."""

    value: float
    chance: float | None = None
    influence_N: NDArray[np.float64] | None = None
    """How far each row moves the value, times n: its standard error is the standard deviation of these divided by the
    root of n. None where it is not known."""


def nearest(vectors_ND: NDArray[np.float32], k: int, seed: int = 0) -> NDArray[np.int64]:
    """[n, k]: the k other rows with the highest cosines to each row, nearest first; vectors are unit vectors.

    Among equal cosines chance decides, because the order of rows knows something: neighbours in a table of items often
    come from one history. So vectors that are all equal get what a random ranking gets.
    """
    num_rows = len(vectors_ND)
    shuffled = np.random.default_rng(seed).permutation(num_rows)
    found = np.empty((num_rows, k), np.int64)
    for start in range(0, num_rows, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, num_rows))
        scores = np.round((vectors_ND[rows] @ vectors_ND.T).astype(np.float64) / TIE)[:, shuffled]
        scores[shuffled[None, :] == rows[:, None]] = -np.inf
        found[rows] = shuffled[np.argsort(-scores, axis=1, kind="stable")[:, :k]]
    return found


def mean_of_nearest(
    neighbours_NK: NDArray[np.int64], truth_NN: NDArray[np.generic], counted_N: NDArray[np.bool_] | None = None
) -> Measure:
    """Mean of a truth about pairs over each row's nearest, then over the rows; a share where the truth is yes or no.

    Chance is exact: the mean over all others, which is what a random ranking gets on average.

    A row moves the value by its own nearest and by being near to others. Both are in `influence_N`: most who are near
    are so in both directions, and an error from the first alone would be too small by half.

    Args:
        neighbours_NK: rows of the nearest.
        truth_NN: the truth about each pair; the diagonal does not count.
        counted_N: which rows have a say; all of them without it.
    """
    num_rows = len(neighbours_NK)
    truth = truth_NN.astype(np.float64)
    counted = np.ones(num_rows, bool) if counted_N is None else counted_N
    of_pairs = np.take_along_axis(truth, neighbours_NK, axis=1)
    by_chance = (truth.sum(axis=1) - truth.diagonal()) / (num_rows - 1)
    value = float(of_pairs[counted].mean())
    surplus = np.where(counted[:, None], of_pairs - value, 0) / (neighbours_NK.shape[1] * counted.mean())
    as_neighbour = np.bincount(neighbours_NK.ravel(), surplus.ravel(), minlength=num_rows)
    return Measure(value=value, chance=float(by_chance[counted].mean()), influence_N=surplus.sum(axis=1) + as_neighbour)


def own_ranks(
    vectors_ND: NDArray[np.float32], targets_ND: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each row's own target stands when all n targets are ranked by their cosine to the row's vector.

    Returns:
        [n]: its rank, 1 for the best, and the middle one of those that share its place.
        [n]: the probability that it is first where ties are broken by chance.
    """
    num_rows = len(vectors_ND)
    ranks, first = np.empty(num_rows), np.empty(num_rows)
    for start in range(0, num_rows, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, num_rows))
        scores = (vectors_ND[rows] @ targets_ND.T).astype(np.float64)
        own = scores[np.arange(len(rows)), rows][:, None]
        better, tied = (scores > own + TIE).sum(axis=1), (np.abs(scores - own) <= TIE).sum(axis=1)
        ranks[rows] = better + (tied + 1) / 2
        first[rows] = (better == 0) / tied
    return ranks, first


def found_first(first_N: NDArray[np.float64]) -> Measure:
    """Share of the rows whose own target ranks first; see `own_ranks`. Chance is one in n."""
    return Measure(value=float(first_N.mean()), chance=1 / len(first_N))


def median_rank(ranks_N: NDArray[np.float64]) -> Measure:
    """Median rank of the rows' own targets; see `own_ranks`. Chance is the middle of 1..n."""
    return Measure(value=float(np.median(ranks_N)), chance=(len(ranks_N) + 1) / 2)


def mean_cosine(vectors_ND: NDArray[np.float32]) -> Measure:
    """Mean cosine of two different rows, over all pairs: 1 where all texts mean the same.

    The square of the sum of unit vectors holds every pair twice, and each row with itself.
    """
    num_rows, vectors = len(vectors_ND), vectors_ND.astype(np.float64)
    whole, own = np.square(vectors.sum(axis=0)).sum(), np.square(vectors).sum()
    return Measure(value=float((whole - own) / (num_rows * (num_rows - 1))))


def equal_texts(texts: Sequence[str]) -> Measure:
    """Share of the texts that another row has too, letter by letter."""
    counts = Counter(texts)
    return Measure(value=sum(num for num in counts.values() if num > 1) / len(texts))


def distinct_openings(texts: Sequence[str]) -> Measure:
    """Number of different beginnings (the first three words, in any case) for each text: low where all start alike."""
    openings = {tuple(text.lower().split()[:OPENING_WORDS]) for text in texts}
    return Measure(value=len(openings) / len(texts))
