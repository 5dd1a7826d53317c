"""Selection of neighbours against brute force, on random and duplicate vectors."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sracl_dist.columns import MISSING
from sracl_dist.neighbours.merge import select_neighbours, unsettled_rows


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms == 0, 1, norms)).astype(np.float32)


def brute_force(vectors: NDArray[np.float32], first_key: int, k: int) -> tuple[list[list[int]], list[list[float]]]:
    """The definition, pair by pair: others by falling score, ties by rising key."""
    keys, scores = [], []
    for row, query in enumerate(vectors.astype(np.float64)):
        pairs = [
            (-float(np.float32((query * other).sum())), first_key + at)
            for at, other in enumerate(vectors.astype(np.float64))
            if at != row
        ]
        best = sorted(pairs)[:k]
        keys.append([key for _, key in best] + [MISSING] * (k - len(best)))
        scores.append([-score for score, _ in best] + [-np.inf] * (k - len(best)))
    return keys, scores


@given(
    num=st.integers(1, 25),
    k=st.integers(1, 8),
    first_key=st.integers(0, 1),
    num_distinct=st.integers(1, 25),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=60, deadline=None)
def test_all_candidates_give_the_exact_table(num: int, k: int, first_key: int, num_distinct: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = unit(random.normal(size=(num_distinct, 4)))[random.integers(num_distinct, size=num)]
    keys = np.arange(first_key, first_key + num)
    candidates = np.stack([random.permutation(keys) for _ in keys])
    found, scores = select_neighbours(keys, vectors, candidates, vectors, first_key, k)
    expected_keys, expected_scores = brute_force(vectors, first_key, k)
    assert found.tolist() == expected_keys
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-6)


def test_a_user_is_never_its_own_neighbour_even_among_duplicates() -> None:
    vectors = unit(np.ones((6, 3)))
    keys = np.arange(6)
    found, scores = select_neighbours(keys, vectors, np.tile(keys, (6, 1)), vectors, 0, 3)
    assert found[0].tolist() == [1, 2, 3]
    assert found[2].tolist() == [0, 1, 3]
    assert np.allclose(scores, 1)


def test_missing_candidates_are_ignored() -> None:
    vectors = unit(np.eye(3))
    found, scores = select_neighbours(np.array([0]), vectors[:1], np.array([[MISSING, 2, 0, 1]]), vectors, 0, 3)
    assert found.tolist() == [[1, 2, MISSING]]
    assert scores[0, 2] == -np.inf


def test_a_tie_at_the_end_of_the_candidates_is_unsettled() -> None:
    scores = np.array([[0.9, 0.8], [0.9, 0.8], [0.9, 0.8]], np.float32)
    first, second = np.array([0.8, 0.5, 0.5], np.float32), np.array([0.1, 0.8, 0.1], np.float32)
    assert unsettled_rows(scores, [first]).tolist() == [0]
    assert unsettled_rows(scores, [first, second]).tolist() == [0, 1], "in any part"
    assert unsettled_rows(scores, []).tolist() == [], "every part was seen whole"
