"""Measures of the meter against definitions that count one by one."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sracl_dist.meter import measures
from sracl_dist.meter.measures import (
    TIE,
    Measure,
    distinct_openings,
    equal_texts,
    errors_needed,
    found_first,
    mean_cosine,
    means_of_nearest,
    median_rank,
    nearest_weights,
    own_ranks,
    standard_error,
)


def unit(rows: NDArray[np.floating] | list[list[float]]) -> NDArray[np.float32]:
    vectors = np.asarray(rows, np.float64)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_vectors(seed: int, num: int, width: int = 5) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).normal(size=(num, width)))


def mean_of(
    vectors: NDArray[np.float32], k: int, truth: NDArray[Any], counted: NDArray[np.bool_] | None = None
) -> Measure:
    has_say = np.ones(len(truth), bool) if counted is None else counted
    found = means_of_nearest({"way": vectors}, lambda rows: {"truth": truth[rows]}, {"truth": has_say}, k)
    return found["way"]["truth"]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(3, 40), k=st.integers(1, 10))
def test_the_nearest_are_the_highest_cosines_of_others(seed: int, num: int, k: int) -> None:
    vectors, k = random_vectors(seed, num), min(k, num - 1)
    scores = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    weights = nearest_weights(scores, np.arange(num), k)
    for row in range(num):
        others = [other for other in range(num) if other != row]
        best = sorted(scores[row, others], reverse=True)[:k]
        assert weights[row, row] == 0
        assert weights[row].sum() == pytest.approx(k)
        assert scores[row] @ weights[row] == pytest.approx(sum(best), abs=2 * k * TIE)


def test_the_last_places_are_shared_by_all_that_are_equal() -> None:
    scores = np.array([[1.0, 0.9, 0.5, 0.5 + TIE / 3, 0.5, 0.1]])
    assert nearest_weights(scores, np.array([0]), 2)[0] == pytest.approx([0, 1, 1 / 3, 1 / 3, 1 / 3, 0])


def test_equal_vectors_get_what_chance_gets() -> None:
    """In a log in which few items are in common with everything, and nearly all others with nothing."""
    num = 400
    is_hub = np.random.default_rng(1).random(num) < 0.02
    truth = is_hub[:, None] | is_hub[None, :]
    measure = mean_of(np.ones((num, 1), np.float32), 10, truth)
    assert measure.chance is not None
    assert 0.02 < measure.chance < 0.08
    assert measure.value == pytest.approx(measure.chance, abs=1e-12)
    half = np.arange(num) % 2 == 0  # equal texts within each half
    within = mean_of(unit(np.stack([half, ~half], axis=1)), 10, truth)
    same = half[:, None] == half[None, :]
    np.fill_diagonal(same, False)
    assert within.value == pytest.approx((truth * same / same.sum(axis=1, keepdims=True)).sum() / num)


@pytest.mark.parametrize("block_rows", [1, 3, 1024])
def test_a_share_and_its_chance_by_hand(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "BLOCK_ROWS", block_rows)
    vectors = unit([[1, 0], [1, 0.1], [0, 1], [0.1, 1]])  # two pairs
    truth = np.array([[9, 1, 0, 0], [1, 9, 1, 0], [0, 1, 9, 0], [0, 0, 0, 9]]) > 0
    measure = mean_of(vectors, 1, truth)
    assert measure.value == pytest.approx(2 / 4)
    assert measure.chance == pytest.approx((1 + 2 + 1 + 0) / 3 / 4)
    # Each row is near one other, and this one near it: half above or below the mean, in both parts.
    assert measure.influence_N == pytest.approx([1, 1, -1, -1])
    counted = mean_of(vectors, 1, truth, np.array([True, False, False, True]))
    assert (counted.value, counted.chance) == (pytest.approx(1 / 2), pytest.approx(1 / 6))
    nobody = means_of_nearest({"way": vectors}, lambda rows: {"truth": truth[rows]}, {"truth": np.zeros(4, bool)}, 1)
    assert nobody == {"way": {}}


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), num=st.integers(3, 30))
def test_chance_is_the_mean_over_all_rankings(seed: int, num: int) -> None:
    truth = np.random.default_rng(seed).random((num, num)) < 0.3
    measure = mean_of(random_vectors(seed, num), num - 1, truth)
    assert measure.value == pytest.approx(measure.chance), "the nearest of all are all"
    brute = np.mean([truth[row, other] for row in range(num) for other in range(num) if other != row])
    assert measure.chance == pytest.approx(brute)


def test_rows_of_a_group_are_one_observation() -> None:
    influence = np.array([1.0, 3.0, -2.0, -2.0])
    alone = standard_error(influence, np.arange(4))
    assert alone == pytest.approx(np.std(influence, ddof=1) / 2)
    assert standard_error(influence, np.array([7, 7, 9, 9])) == pytest.approx(np.sqrt(2 * (4**2 + 4**2)) / 4)
    assert standard_error(np.repeat(influence, 5), np.repeat(np.arange(4), 5)) == pytest.approx(alone)
    assert standard_error(influence, np.zeros(4)) == np.inf


def test_more_ways_and_fewer_groups_need_a_clearer_lead() -> None:
    assert errors_needed(1, 100_000) == pytest.approx(1.96, abs=0.001)
    assert errors_needed(2, 100_000) == pytest.approx(2.2414, abs=0.001)
    assert errors_needed(1, 11) == pytest.approx(2.228, rel=0.01)
    assert errors_needed(6, 21) == pytest.approx(2.927, rel=0.01)


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
