"""The items and users that are looked at: few, but connected, or else nothing among them was chosen together."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sracl_dist.histories import Histories
from sracl_dist.sequences import USERS_PER_PIECE, Sequences

MIN_ROWS = 3
"""Of a kind, to measure anything: with two rows there is only one other."""
HISTORIES_PER_PIECE = 4096
MOST_OF_A_USER = 3
"""Items that one user brings into the sample at a time: those of one user are alike, and tell less than as many of
different users."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Keys that are looked at; each is in it once."""

    items: NDArray[np.int64]
    """Rising items, 1..V."""
    users: NDArray[np.int64]
    """Rising users with training items."""
    brought_by: NDArray[np.int64]
    """The user whose history brought each item into the sample."""

    def is_enough(self, kinds: Iterable[str]) -> bool:
        """Whether anything can be measured about all of these kinds."""
        return all(len(self.keys(kind)) >= MIN_ROWS for kind in kinds)

    def keys(self, kind: str) -> NDArray[np.int64]:
        """Those of `items` or `users`."""
        return self.items if kind == "items" else self.users

    def groups(self, kind: str) -> NDArray[np.int64]:
        """[n]: rows of a kind with the same number were drawn together; for users each is drawn alone."""
        return self.brought_by if kind == "items" else self.users


def connected_sample(sequences: Sequences, num_rows: int, seed: int) -> Sample:
    """Up to `num_rows` items and as many users, chosen by training interactions alone.

    Users are taken at random, and of each one up to MOST_OF_A_USER of its training items, at random, until there are
    enough items; where all users have been asked, each is asked for as many again. So each sampled item shares a user
    with some others, and a popular item is likelier to be taken, as it is likelier to be met. The users are then taken
    at random among those who have a sampled item in training, and where these are too few, among the others. Items and
    users without a training interaction are never taken.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(np.flatnonzero(sequences.num_train > 0))
    items, brought_by = _items_of(sequences, order, num_rows, random)
    is_sampled = np.zeros(sequences.num_items + 1, bool)
    is_sampled[items] = True
    has_one = np.zeros(len(order), bool)
    for start in range(0, len(order), USERS_PER_PIECE):
        piece = slice(start, start + USERS_PER_PIECE)
        has_one[piece] = _have_one(sequences, order[piece], is_sampled)
    # Behind the order's own beginning, which brought the items, the users who have one are as random as before.
    shuffled = random.permutation(len(order))
    first = shuffled[np.argsort(~has_one[shuffled], kind="stable")][:num_rows]
    rising = np.argsort(items)
    return Sample(items=items[rising], users=np.sort(order[first]), brought_by=brought_by[rising])


def _items_of(
    sequences: Sequences, users: NDArray[np.int64], num_rows: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Up to `num_rows` items, and the user who brought each."""
    is_taken = np.zeros(sequences.num_items + 1, bool)
    items: list[int] = []
    brought_by: list[int] = []
    num_before = -1
    while num_before < len(items) < num_rows:
        num_before = len(items)
        for start in range(0, len(users), HISTORIES_PER_PIECE):
            piece = users[start : start + HISTORIES_PER_PIECE]
            for user, history in zip(piece.tolist(), _training(sequences, piece), strict=True):
                new = np.unique(history[~is_taken[history]])
                new = random.permutation(new)[: min(MOST_OF_A_USER, num_rows - len(items))]
                is_taken[new] = True
                items += new.tolist()
                brought_by += [user] * len(new)
            if len(items) == num_rows:
                break
    return np.array(items, np.int64), np.array(brought_by, np.int64)


def _have_one(sequences: Sequences, users: NDArray[np.int64], is_sampled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the users have a sampled item; all of them have a training item."""
    histories = _training(sequences, users)
    found: NDArray[np.bool_] = np.logical_or.reduceat(is_sampled[histories.items_T], histories.offsets[:-1])
    return found


def _training(sequences: Sequences, users: NDArray[np.int64]) -> Histories:
    return Histories.gather(sequences.items, sequences.offsets[users], sequences.num_train[users])
