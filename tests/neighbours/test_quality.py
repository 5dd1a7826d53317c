"""The measured recall is 1 for the true table and falls with every wrong entry."""

import numpy as np
import pytest

from sracl_dist.neighbours.quality import sampled_recall


def exact_table(vectors: np.ndarray, first_key: int, k: int) -> np.ndarray:
    products = vectors @ vectors.T
    np.fill_diagonal(products, -np.inf)
    return first_key + np.argsort(-products, axis=1)[:, :k]


@pytest.fixture
def vectors() -> np.ndarray:
    vectors = np.random.default_rng(1).normal(size=(50, 8))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_the_true_table_has_recall_one(vectors: np.ndarray) -> None:
    assert sampled_recall(exact_table(vectors, 1, 5), vectors, 1, 1000, seed=0) == {"recall": 1.0, "num_sampled": 50}


def test_every_wrong_neighbour_counts(vectors: np.ndarray) -> None:
    table = exact_table(vectors, 0, 5)
    table[:, -1] = np.argmin(vectors @ vectors.T, axis=1)
    assert sampled_recall(table, vectors, 0, 50, seed=0)["recall"] == pytest.approx(0.8)
    table[:, :] = -1
    assert sampled_recall(table, vectors, 0, 50, seed=0)["recall"] == 0


def test_either_of_two_equal_vectors_is_right() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8]], np.float32)
    table = np.array([[2], [2], [1]])
    assert sampled_recall(table, vectors, 0, 3, seed=0)["recall"] == 1


def test_fewer_others_than_k() -> None:
    vectors = np.eye(2, dtype=np.float32)
    assert sampled_recall(np.array([[1, -1], [0, -1]]), vectors, 0, 2, seed=0)["recall"] == 1
    assert sampled_recall(np.array([[-1, -1]]), vectors[:1], 0, 2, seed=0)["recall"] == 1
