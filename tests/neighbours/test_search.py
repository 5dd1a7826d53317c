"""FAISS within one part of the table, against plain numpy; lists are in test_part.py."""

import numpy as np
import pytest

from sracl_dist.errors import StageError
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.neighbours.search import ExactIndex, train_lists


def test_candidates_are_the_highest_inner_products() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 16)).astype(np.float32)
    queries = random.normal(size=(7, 16)).astype(np.float32)
    scores, rows = ExactIndex(vectors).search(queries, 12)
    products = queries @ vectors.T
    assert np.array_equal(rows, np.argsort(-products, axis=1)[:, :12])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :12], rtol=1e-5)


def test_a_part_smaller_than_the_request_gives_what_it_has() -> None:
    scores, rows = ExactIndex(np.eye(3, dtype=np.float32)).search(np.ones((2, 3), np.float32), 10)
    assert scores.shape == rows.shape == (2, 3)
    assert sorted(rows[0].tolist()) == [0, 1, 2]


def test_more_lists_than_vectors_are_refused() -> None:
    with pytest.raises(StageError, match=r"3 vectors cannot fill 4 lists; lower neighbours\.num_lists"):
        train_lists(np.eye(3, dtype=np.float32), SearchPlan(kind="ivf", num_lists=4))


def test_training_is_the_same_again() -> None:
    vectors = np.random.default_rng(1).normal(size=(500, 8)).astype(np.float32)
    plan = SearchPlan(kind="ivf_pq", num_lists=4, num_codes=2)
    assert train_lists(vectors, plan).tobytes() == train_lists(vectors, plan).tobytes()
