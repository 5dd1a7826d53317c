"""Measures of vectors and texts of n rows. Each tells what a random ranking would get, where there is such a thing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 256
"""Rows whose pairs with all others are looked at together: 20 MB with 10,000 rows and numbers of 8 bytes."""
ALPHA = 0.025
"""Of each kind, so that at most one run in twenty chooses anything by mistake."""
TIE = 1e-6
"""Cosines closer than this are equal: those of equal texts differ in the last digits."""
OPENING_WORDS = 3


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number, and what chance would make of it."""

    value: float
    chance: float | None = None
    influence_N: NDArray[np.float64] | None = None
    """How far each row moves the value, times n; see `standard_error`. None where it is not known."""


def nearest_weights(scores_BN: NDArray[np.floating], rows_B: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """[B, n]: how probably each of n rows is among the k nearest others, if chance decides between equal cosines.

    Taking one of several equal rows would favour the same ones everywhere: where all texts are equal, every row would
    have the same few neighbours, and a popular one among them would look like knowledge.

    Args:
        scores_BN: cosines of some rows to all.
        rows_B: which rows these are.
        k: at most n - 1.
    """
    scores = scores_BN.astype(np.float64)
    scores[np.arange(len(rows_B)), rows_B] = -np.inf
    last = np.partition(scores, -k, axis=1)[:, -k][:, None]
    is_above, is_tied = scores > last + TIE, np.abs(scores - last) <= TIE
    free = k - is_above.sum(axis=1, keepdims=True)
    weights: NDArray[np.float64] = is_above + is_tied * (free / is_tied.sum(axis=1, keepdims=True))
    return weights


def means_of_nearest(
    vectors: Mapping[str, NDArray[np.float32]],
    truths: Callable[[NDArray[np.int64]], Mapping[str, NDArray[np.generic]]],
    counted: Mapping[str, NDArray[np.bool_]],
    k: int,
) -> dict[str, dict[str, Measure]]:
    """By way and truth: its mean over each row's k nearest, then over the rows; a share where the truth is yes or no.

    Chance is exact: the mean over all others, which is what a random ranking gets on average. Only a block of rows is
    held at a time, whatever n is.

    A row moves the value by its own nearest and by being near to others. Both are in `influence_N`: most who are near
    are so in both directions, and an error from the first alone would be too small by half.

    Args:
        vectors: [n, d] of every way, unit vectors.
        truths: from rows to what is true about each pair of one of them [B] and any row [n], by name; the diagonal does
            not count.
        counted: [n] by the names of the truths: which rows have a say. A truth with no such row is left out.
        k: how many nearest.
    """
    num_rows = len(next(iter(vectors.values())))
    names = [name for name, rows in counted.items() if rows.any()]
    chances = {name: np.zeros(num_rows) for name in names}
    sums = {way: {name: _Sums(num_rows) for name in names} for way in vectors}
    for start in range(0, num_rows, BLOCK_ROWS):
        rows = np.arange(start, min(start + BLOCK_ROWS, num_rows))
        told = {name: truth.astype(np.float64) for name, truth in truths(rows).items() if name in names}
        for name, truth in told.items():
            chances[name][rows] = (truth.sum(axis=1) - truth[np.arange(len(rows)), rows]) / (num_rows - 1)
        for way, own in vectors.items():
            weights = nearest_weights(own[rows] @ own.T, rows, k) / k
            for name, truth in told.items():
                sums[way][name].add(rows, weights, truth, counted[name][rows])
    return {
        way: {name: own.measure(counted[name], chances[name]) for name, own in of_way.items()}
        for way, of_way in sums.items()
    }


class _Sums:
    """What a mean over the nearest is made of, given row by row."""

    def __init__(self, num_rows: int) -> None:
        self._of_rows, self._weights = np.zeros(num_rows), np.zeros(num_rows)
        self._as_neighbour = np.zeros(num_rows)

    def add(
        self,
        rows_B: NDArray[np.int64],
        weights_BN: NDArray[np.float64],
        truth_BN: NDArray[np.float64],
        counted_B: NDArray[np.bool_],
    ) -> None:
        weighed = weights_BN * truth_BN
        self._of_rows[rows_B] = weighed.sum(axis=1)
        self._as_neighbour += weighed[counted_B].sum(axis=0)
        self._weights += weights_BN[counted_B].sum(axis=0)

    def measure(self, counted_N: NDArray[np.bool_], chance_N: NDArray[np.float64]) -> Measure:
        value = float(self._of_rows[counted_N].mean())
        influence = np.where(counted_N, self._of_rows - value, 0) + self._as_neighbour - value * self._weights
        return Measure(value=value, chance=float(chance_N[counted_N].mean()), influence_N=influence / counted_N.mean())


def standard_error(influence_N: NDArray[np.float64], groups_N: NDArray[np.int64]) -> float:
    """Of a value with these influences, where rows of a group were drawn together and may be alike in any way.

    It is the group jackknife in its linear form: the influences of a group are added before they are squared, so 20
    rows of one user count as one observation (Cameron and Miller 2015, A practitioner's guide to cluster-robust
    inference). Infinite with a single group.
    """
    groups, codes = np.unique(groups_N, return_inverse=True)
    if len(groups) < 2:
        return float("inf")
    of_groups = np.bincount(codes, influence_N - influence_N.mean())
    return float(np.sqrt(np.square(of_groups).sum() * len(groups) / (len(groups) - 1)) / len(influence_N))


def errors_needed(num_compared: int, num_groups: int) -> float:
    """By how many standard errors a way must lead to be chosen by mistake in at most ALPHA of all cases.

    The quantile of Student's t at ALPHA divided by the number of ways compared (Bonferroni), in the expansion of
    Abramowitz and Stegun 26.7.5, which is exact to 2 % from ten groups.
    """
    z, df = NormalDist().inv_cdf(1 - ALPHA / num_compared), max(num_groups - 1, 1)
    return z + (z**3 + z) / (4 * df) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)


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
