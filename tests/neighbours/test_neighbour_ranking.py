"""Pair scores, the order of neighbours, and the join of parts."""

import numpy as np

from sracl_dist.columns import MISSING
from sracl_dist.neighbours.ranking import ROWS_AT_ONCE, merge, pair_scores, rank


def test_scores_are_those_of_the_pairs() -> None:
    random = np.random.default_rng(0)
    queries, vectors = random.normal(size=(ROWS_AT_ONCE + 5, 7)), random.normal(size=(30, 7))
    rows = random.integers(30, size=(len(queries), 3))
    scores = pair_scores(queries.astype(np.float32), vectors.astype(np.float32), rows)
    for at in (0, 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 4):
        own = queries[at].astype(np.float32).astype(np.float64)
        expected = [float((own * vectors[row].astype(np.float32)).sum()) for row in rows[at]]
        np.testing.assert_array_equal(scores[at], np.float32(expected))


def test_a_pair_has_one_score_wherever_it_stands() -> None:
    random = np.random.default_rng(1)
    vectors = random.normal(size=(50, 33)).astype(np.float32)
    alone = pair_scores(vectors[7:8], vectors, np.array([[3]]))
    among = pair_scores(vectors[np.full(2000, 7)], vectors, np.full((2000, 4), 3))
    assert np.unique(among).tolist() == alone[0].tolist()


def test_ties_go_to_the_lower_key_and_what_does_not_count_is_missing() -> None:
    keys = np.array([[9, 4, 7, 2]])
    scores = np.array([[0.5, 0.5, -np.inf, 0.9]], np.float32)
    found, found_scores = rank(keys, scores, 5)
    assert found.tolist() == [[2, 4, 9, MISSING, MISSING]]
    assert found_scores[0].tolist() == [np.float32(0.9), 0.5, 0.5, -np.inf, -np.inf]


def test_parts_are_joined_by_score_and_key() -> None:
    first = np.array([[1, 5]]), np.array([[0.8, 0.2]], np.float32)
    second = np.array([[3, MISSING]]), np.array([[0.8, -np.inf]], np.float32)
    found, scores = merge([second, first])
    assert found.tolist() == [[1, 3]]
    assert scores[0].tolist() == [np.float32(0.8)] * 2
