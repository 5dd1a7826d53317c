"""What training says about a sample: which items somebody chose together, and what users have in common.

The truth is held out from the texts. What a text was written from would be found again in it, whatever else it is
worth: prompts of items show histories, prompts and raw texts of users show items. So

    a user counts as having an item only if the text of neither side was written from that: the user's history is not
    among those that the item's prompt shows, and the item is not among the latest that the user's texts show.

This holds for every way alike, raw text included, so that all are compared by the same truth. With
profile.histories_per_item=0 no item's prompt shows anything, and all users count.

What remains biased: items that few users have may have none left, so the figures are those of items that more users
chose than a prompt shows. Users have only the items before their latest ones left, so their figures are those of long
histories, about an older taste, and there are none for short histories; where fewer than half of the users have any,
the items decide for them (`worth.choose_each`). Item figures are the ones to trust. Profiles from files may have been
written from anything, which nothing here knows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sracl_dist.histories import Histories
from sracl_dist.sequences import USERS_PER_PIECE, Sequences

PAIRS_PER_PIECE = 1 << 22
"""Pairs counted at a time: 100 MB."""


class Common:
    """How many groups rows have in common, from memberships (row, group), where repeated ones count once.

    The work grows with the squares of the groups' sizes; only a block of rows is held as a table.

    Args:
        rows: of each membership, 0..n - 1.
        groups: of each membership, any numbers.
        num_rows: n.
        num_groups_N: groups of every row where memberships without a second row were left out.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        groups: NDArray[np.int64],
        num_rows: int,
        num_groups_N: NDArray[np.int64] | None = None,
    ) -> None:
        order = np.lexsort((groups, rows))
        rows, groups = rows[order], groups[order]
        is_new = np.ones(len(rows), bool)
        is_new[1:] = (np.diff(rows) != 0) | (np.diff(groups) != 0)
        rows = rows[is_new]
        found, codes = np.unique(groups[is_new], return_inverse=True)
        self._num_rows, self._groups = num_rows, codes
        self._row_starts = np.searchsorted(rows, np.arange(num_rows + 1))
        self._members = rows[np.argsort(codes, kind="stable")]
        self._group_starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(found)))])
        self.num_groups_N = np.diff(self._row_starts) if num_groups_N is None else num_groups_N
        """[n]: groups of every row."""

    def block(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """[B, n]: groups in common of consecutive rows and all rows; a row with itself has what is known of its own."""
        first, last = self._row_starts[rows[0]], self._row_starts[rows[-1] + 1]
        owners = np.repeat(np.arange(len(rows)), np.diff(self._row_starts[rows[0] : rows[-1] + 2]))
        groups = self._groups[first:last]
        starts, sizes = self._group_starts[groups], np.diff(self._group_starts)[groups]
        ends = np.cumsum(sizes)
        counts = np.zeros(len(rows) * self._num_rows, np.int64)
        begin = 0
        while begin < len(groups):
            done = ends[begin - 1] if begin else 0
            end = max(begin + 1, int(np.searchsorted(ends, done + PAIRS_PER_PIECE, side="right")))
            piece = slice(begin, end)
            places = np.arange(ends[end - 1] - done) + np.repeat(
                starts[piece] - (ends - sizes)[piece] + done, sizes[piece]
            )
            pairs = np.repeat(owners[piece], sizes[piece]) * self._num_rows + self._members[places]
            counts += np.bincount(pairs, minlength=len(counts))
            begin = end
        return counts.reshape(len(rows), self._num_rows)


def users_of_both(
    sequences: Sequences, items: NDArray[np.int64], shown_to: Mapping[int, NDArray[np.int64]] | None = None
) -> Common:
    """How many of all users have both items in training, without the users whose histories an item's text shows.

    Args:
        sequences: of which only training items are read.
        items: rising.
        shown_to: by item the users whose histories were shown to who wrote about it; they do not count as having it.
    """
    row_of = np.full(sequences.num_items + 1, -1, np.int64)
    row_of[items] = np.arange(len(items))
    hidden = [np.unique(users) * len(items) + row_of[item] for item, users in (shown_to or {}).items()]
    is_hidden = np.concatenate([np.zeros(0, np.int64), *hidden])
    parts, num_users = [np.zeros(0, np.int64)], np.zeros(len(items), np.int64)
    for first in range(0, sequences.num_users, USERS_PER_PIECE):
        piece = slice(first, min(first + USERS_PER_PIECE, sequences.num_users))
        histories = Histories.gather(sequences.items, sequences.offsets[piece], sequences.num_train[piece])
        rows = row_of[histories.items_T]
        users = first + np.repeat(np.arange(len(histories)), histories.lengths_B)
        own = np.unique(users[rows >= 0] * len(items) + rows[rows >= 0])
        own = own[~np.isin(own, is_hidden)]
        num_users += np.bincount(own % len(items), minlength=len(items))
        users = own // len(items)
        # Most users have one sampled item or none, which is in common with nobody.
        has_others = np.bincount(users - first, minlength=len(histories)) >= 2 if len(users) else users > 0
        parts.append(own[has_others[users - first]] if len(users) else own)
    memberships = np.concatenate(parts)
    return Common(memberships % len(items), memberships // len(items), len(items), num_users)


def items_of_both(sequences: Sequences, users: NDArray[np.int64], num_shown: int = 0) -> Common:
    """How many items both users have in training, without those among the latest `num_shown` of either."""
    histories = Histories.gather(sequences.items, sequences.offsets[users], sequences.num_train[users])
    width = sequences.num_items + 1

    def memberships(of: Histories) -> NDArray[np.int64]:
        owners: NDArray[np.int64] = np.repeat(np.arange(len(users)), of.lengths_B)
        return owners * width + of.items_T.astype(np.int64)

    left = np.setdiff1d(memberships(histories), memberships(histories.latest(num_shown)))
    return Common(left // width, left % width, len(users))


class Categories:
    """Who is in whose narrowest category.

    An item's narrowest category is the last in its list that at least one other item of the sample lists as well,
    wherever in its list. Another item is of the same one if it lists it.
    """

    def __init__(self, categories: Sequence[Sequence[str]]) -> None:
        """`categories` of every item, the narrowest last."""
        listed = [set(own) for own in categories]
        counts = Counter(name for own in listed for name in own)
        self._narrowest = [next((name for name in reversed(own) if counts[name] >= 2), None) for own in categories]
        self._members: dict[str, list[int]] = {}
        for row, own in enumerate(listed):
            for name in own:
                self._members.setdefault(name, []).append(row)
        self.has_one_N = np.array([name is not None for name in self._narrowest], bool)
        """[n]: whether the item has a narrowest category."""

    def block(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[B, n]: whether the column's item lists the narrowest category of the row's."""
        same = np.zeros((len(rows), len(self._narrowest)), bool)
        for place, row in enumerate(rows.tolist()):
            category = self._narrowest[row]
            if category is not None:
                same[place, self._members[category]] = True
        return same
