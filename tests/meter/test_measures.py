"""Measures of the meter against definitions that count one by one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sracl_dist.meter.measures import (
    TIE,
    distinct_openings,
    equal_texts,
    found_first,
    mean_cosine,
    mean_of_nearest,
    median_rank,
    nearest,
    own_ranks,
)


def unit(rows: NDArray[np.floating] | list[list[float]]) -> NDArray[np.float32]:
    vectors = np.asarray(rows, np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(seed: int, num: int, width: int = 5) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(num, width)))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(3, 40), k=st.integers(1, 10))
def test_the_nearest_are_the_highest_cosines_of_others(seed: int, num: int, k: int) -> None:
    vectors, k = random_vectors(seed, num), min(k, num - 1)
    found = nearest(vectors, k, seed)
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    for row in range(num):
        others = [other for other in range(num) if other != row]
        best = sorted(scores[row, others], reverse=True)[:k]
        assert row not in found[row]
        assert len(set(found[row].tolist())) == k
        np.testing.assert_allclose(scores[row, found[row]], best, atol=2 * TIE)


def test_equal_vectors_get_what_chance_gets() -> None:
    """Although the truth is in the order of the rows, as it is in a table of items."""
    num = 400
    truth = np.abs(np.subtract.outer(np.arange(num), np.arange(num))) <= 20
    measure = mean_of_nearest(nearest(np.ones((num, 1), np.float32), 10), truth)
    assert measure.chance == pytest.approx((40 * 400 - 2 * sum(range(1, 21))) / (400 * 399))
    assert measure.value == pytest.approx(measure.chance, abs=0.02)


def test_a_share_and_its_chance_by_hand() -> None:
    vectors = unit([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])  # two pairs
    truth = np.array([[9, 1, 0, 0], [1, 9, 1, 0], [0, 1, 9, 0], [0, 0, 0, 9]]) > 0
    measure = mean_of_nearest(nearest(vectors, 1), truth)
    assert measure.value == pytest.approx(2 / 4)
    assert measure.chance == pytest.approx((1 + 2 + 1 + 0) / 3 / 4)
    counted = mean_of_nearest(nearest(vectors, 1), truth, np.array([True, False, False, True]))
    assert (counted.value, counted.chance) == (pytest.approx(1 / 2), pytest.approx(1 / 6))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(3, 30))
def test_chance_is_the_mean_over_all_rankings(seed: int, num: int) -> None:
    random = np.random.default_rng(seed)
    truth = random.random((num, num)) < 0.3
    every = np.array([[other for other in range(num) if other != row] for row in range(num)])
    measure = mean_of_nearest(every, truth)
    assert measure.value == pytest.approx(measure.chance), "the nearest of all are all"
    brute = np.mean([truth[row, other] for row in range(num) for other in range(num) if other != row])
    assert measure.chance == pytest.approx(brute)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(2, 30), width=st.integers(1, 4))
def test_ranks_of_the_own_target(seed: int, num: int, width: int) -> None:
    random = np.random.default_rng(seed)
    # Few different vectors, so that there are ties.
    vectors, targets = (unit(random.integers(1, 3, (num, width))) for _ in range(2))
    ranks, first = own_ranks(vectors, targets)
    scores = vectors.astype(np.float64) @ targets.T.astype(np.float64)
    for row in range(num):
        better = sum(scores[row, other] > scores[row, row] + TIE for other in range(num))
        tied = sum(abs(scores[row, other] - scores[row, row]) <= TIE for other in range(num))
        assert ranks[row] == np.mean(np.arange(better + 1, better + tied + 1)), "the mean of the places that they share"
        assert first[row] == (1 / tied if better == 0 else 0)


def test_finding_by_hand() -> None:
    targets = unit([[1, 0], [0, 1], [-1, 0]])
    ranks, first = own_ranks(unit([[1, 0.1], [1, 0.2], [-1, 0.3]]), targets)
    assert ranks.tolist() == [1, 2, 1]
    assert (found_first(first).value, found_first(first).chance) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (median_rank(ranks).value, median_rank(ranks).chance) == (1, 2)
    constant = np.ones((5, 1), np.float32)
    ranks, first = own_ranks(constant, constant)
    assert found_first(first).value == pytest.approx(1 / 5)
    assert median_rank(ranks).value == median_rank(ranks).chance == 3


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(2, 20))
def test_the_mean_cosine_is_that_of_all_pairs(seed: int, num: int) -> None:
    vectors = random_vectors(seed, num)
    pairs = [float(vectors[a] @ vectors[b]) for a in range(num) for b in range(num) if a != b]
    assert mean_cosine(vectors).value == pytest.approx(np.mean(pairs), abs=1e-5)


def test_how_alike_texts_are() -> None:
    texts = ["This is a film.", "this is A film.", "This is a film.", "Sea"]
    assert equal_texts(texts).value == 2 / 4
    assert distinct_openings(texts).value == 2 / 4
