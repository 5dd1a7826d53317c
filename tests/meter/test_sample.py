"""The sample is connected, bounded, the same every time, and chosen by training interactions alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_texts import sequences_of

from sracl_dist.meter.sample import MOST_OF_A_USER, connected_sample
from sracl_dist.meter.together import users_of_both
from sracl_dist.sequences import Sequences


def many_users(num_users: int = 400, num_items: int = 2000, seed: int = 0) -> Sequences:
    """Each user has eight training items of a neighbourhood of its own."""
    random = np.random.default_rng(seed)
    first = random.integers(0, num_items - 40, num_users)
    return sequences_of([(start + random.permutation(40)[:10] + 1).tolist() for start in first], num_items)


def test_it_is_connected() -> None:
    sequences = many_users()
    sample = connected_sample(sequences, 100, seed=3)
    assert len(sample.items) == len(sample.users) == 100
    common = users_of_both(sequences, sample.items).block(np.arange(100)) > 0
    np.fill_diagonal(common, False)
    assert common.sum(axis=1).astype(bool).mean() > 0.95, "each item shares a user with another one"
    by_chance = users_of_both(sequences, np.sort(np.random.default_rng(0).permutation(2000)[:100]) + 1)
    others = by_chance.block(np.arange(100)) > 0
    np.fill_diagonal(others, False)
    assert common.sum() > 2 * others.sum()
    for item, user in zip(sample.items, sample.brought_by, strict=True):
        assert item in sequences.training(user)
    assert np.unique(sample.brought_by, return_counts=True)[1].max() <= MOST_OF_A_USER
    assert np.array_equal(sample.groups("items"), sample.brought_by)
    assert np.array_equal(sample.groups("users"), sample.users)
    has_one = [bool(set(sequences.training(user).tolist()) & set(sample.items.tolist())) for user in sample.users]
    assert all(has_one)


def test_one_user_does_not_fill_it() -> None:
    sequences = sequences_of([list(range(1, 101)), *[[item, item + 1, 1, 1] for item in range(101, 200)]], 200)
    sample = connected_sample(sequences, 60, seed=0)
    assert (sample.brought_by == 0).sum() <= MOST_OF_A_USER


@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=8), min_size=1, max_size=9),
    num_rows=st.integers(1, 12),
    seed=st.integers(0, 5),
)
def test_what_may_be_in_it(histories: list[list[int]], num_rows: int, seed: int) -> None:
    sequences = sequences_of(histories, 9)
    sample = connected_sample(sequences, num_rows, seed)
    trained = {item for history in histories for item in history[:-2]}
    with_history = [user for user, history in enumerate(histories) if len(history) > 2]
    assert len(sample.items) == min(num_rows, len(trained))
    assert len(sample.users) == min(num_rows, len(with_history))
    assert set(sample.items.tolist()) <= trained
    assert set(sample.users.tolist()) <= set(with_history)
    for keys in (sample.items, sample.users):
        assert (np.diff(keys) > 0).all()
    again = connected_sample(sequences, num_rows, seed)
    assert np.array_equal(again.items, sample.items)
    assert np.array_equal(again.users, sample.users)
    has_one = [bool(set(history[:-2]) & set(sample.items.tolist())) for history in histories]
    assert sum(has_one[user] for user in sample.users) == min(num_rows, sum(has_one)), "those who have one come first"


@pytest.mark.parametrize("num_rows", [2, 3])
def test_too_few_rows_measure_nothing(num_rows: int) -> None:
    assert connected_sample(many_users(), num_rows, 0).is_enough(("items", "users")) == (num_rows == 3)
