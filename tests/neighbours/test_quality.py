"""The measured recall is 1 for the true table and falls with every wrong entry."""

import numpy as np
import pytest
from brute_force import brute_force, unit

from sracl_dist.columns import MISSING
from sracl_dist.neighbours.quality import recall, sample_rows
from sracl_dist.neighbours.ranking import Ranked


@pytest.fixture
def true() -> Ranked:
    keys, scores = brute_force(unit(np.random.default_rng(1).normal(size=(50, 8))), 1, 5)
    return np.array(keys), np.array(scores, np.float32)


def test_the_true_table_has_recall_one(true: Ranked) -> None:
    assert recall(true, true) == 1


def test_every_wrong_neighbour_counts(true: Ranked) -> None:
    keys, scores = true[0].copy(), true[1].copy()
    keys[:, -1], scores[:, -1] = 99, scores[:, -1] - 0.1
    assert recall((keys, scores), true) == pytest.approx(0.8)
    keys[:], scores[:] = MISSING, -np.inf
    assert recall((keys, scores), true) == 0


def test_either_of_two_equal_neighbours_is_right(true: Ranked) -> None:
    keys = true[0].copy()
    keys[:, -1] = 99
    assert recall((keys, true[1]), true) == 1


def test_where_there_are_fewer_others_only_those_are_asked_for() -> None:
    keys = np.array([[2, MISSING], [1, MISSING]])
    scores = np.array([[0.5, -np.inf], [0.5, -np.inf]], np.float32)
    assert recall((keys, scores), (keys, scores)) == 1
    nobody = np.full((2, 2), MISSING), np.full((2, 2), -np.inf, np.float32)
    assert recall(nobody, (keys, scores)) == 0
    assert recall(nobody, nobody) == 1


def test_the_sample_is_rising_distinct_and_the_same_again() -> None:
    rows = sample_rows(100, 30, seed=4)
    assert len(set(rows.tolist())) == 30
    assert rows.tolist() == sorted(rows.tolist()) == sample_rows(100, 30, seed=4).tolist()
    assert sample_rows(3, 30, seed=4).tolist() == [0, 1, 2]
