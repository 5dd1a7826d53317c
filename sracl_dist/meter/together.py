"""What training says about a sample: which items somebody chose together, and what users have in common."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sracl_dist.histories import Histories
from sracl_dist.sequences import USERS_PER_PIECE, Sequences

PAIRS_PER_PIECE = 1 << 22
"""Pairs counted at a time: 100 MB."""


def users_of_both(sequences: Sequences, items: NDArray[np.int64]) -> NDArray[np.int32]:
    """[n, n]: how many of all users have both items in training; on the diagonal how many have the item."""
    row_of = np.full(sequences.num_items + 1, -1, np.int64)
    row_of[items] = np.arange(len(items))
    rows, users = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for first in range(0, sequences.num_users, USERS_PER_PIECE):
        piece = slice(first, min(first + USERS_PER_PIECE, sequences.num_users))
        histories = Histories.gather(sequences.items, sequences.offsets[piece], sequences.num_train[piece])
        found = row_of[histories.items_T]
        owners = first + np.repeat(np.arange(len(histories)), histories.lengths_B)
        rows.append(found[found >= 0])
        users.append(owners[found >= 0])
    return in_common(np.concatenate(rows), np.concatenate(users), len(items))


def items_of_both(sequences: Sequences, users: NDArray[np.int64]) -> NDArray[np.int32]:
    """[n, n]: how many items both users have in training; on the diagonal how many the user has."""
    histories = Histories.gather(sequences.items, sequences.offsets[users], sequences.num_train[users])
    rows = np.repeat(np.arange(len(users)), histories.lengths_B)
    return in_common(rows, histories.items_T.astype(np.int64), len(users))


def in_common(rows: NDArray[np.int64], groups: NDArray[np.int64], num_rows: int) -> NDArray[np.int32]:
    """[n, n]: in how many groups both rows are, from memberships (row, group), where repeated ones count once.

    The work grows with the squares of the groups' sizes, and the memory with n squared.
    """
    counts = np.zeros(num_rows * num_rows, np.int32)
    # By group, then by row, each once.
    order = np.lexsort((rows, groups))
    rows, groups = rows[order], groups[order]
    if len(rows):
        is_new = np.concatenate([[True], (np.diff(rows) != 0) | (np.diff(groups) != 0)])
        rows, groups = rows[is_new], groups[is_new]
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(starts, sizes)
    partners = np.repeat(sizes, sizes)  # of every membership
    ends = np.cumsum(partners)
    first = 0
    while first < len(rows):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + PAIRS_PER_PIECE, side="right")))
        own = np.repeat(np.arange(first, last), partners[first:last])
        begin = np.repeat(ends[first:last] - partners[first:last] - done, partners[first:last])
        other = own - place[own] + (np.arange(len(own)) - begin)
        counts += np.bincount(rows[own] * num_rows + rows[other], minlength=len(counts)).astype(np.int32)
        first = last
    return counts.reshape(num_rows, num_rows)


def same_narrowest_category(categories: Sequence[Sequence[str]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Who is in whose narrowest category, and who has one.

    An item's narrowest category is the last in its list that at least one other item of the sample lists as well,
    wherever in its list. Another item is of the same one if it lists it.

    Returns:
        [n, n]: whether the column's item lists the narrowest category of the row's; [n]: whether the row's has one.
    """
    listed = [set(own) for own in categories]
    counts = Counter(name for own in listed for name in own)
    narrowest = [next((name for name in reversed(own) if counts[name] >= 2), None) for own in categories]
    members: dict[str, list[int]] = {}
    for row, own in enumerate(listed):
        for name in own:
            members.setdefault(name, []).append(row)
    same_NN = np.zeros((len(categories), len(categories)), bool)
    for row, category in enumerate(narrowest):
        if category is not None:
            same_NN[row, members[category]] = True
    return same_NN, np.array([name is not None for name in narrowest], bool)
