"""FAISS within one part of the table, against plain numpy."""

import numpy as np

from sracl_dist.neighbours.search import IndexPart


def test_candidates_are_the_highest_inner_products() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 16)).astype(np.float32)
    queries = random.normal(size=(7, 16)).astype(np.float32)
    scores, keys = IndexPart(1000, vectors).search(queries, 12)
    products = queries @ vectors.T
    assert np.array_equal(keys, 1000 + np.argsort(-products, axis=1)[:, :12])
    np.testing.assert_allclose(scores, -np.sort(-products, axis=1)[:, :12], rtol=1e-5)


def test_a_part_smaller_than_the_request_gives_what_it_has() -> None:
    part = IndexPart(1, np.eye(3, dtype=np.float32))
    scores, keys = part.search(np.ones((2, 3), np.float32), 10)
    assert scores.shape == keys.shape == (2, 3)
    assert sorted(keys[0].tolist()) == [1, 2, 3]
