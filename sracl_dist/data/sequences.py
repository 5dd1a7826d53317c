"""The table `sequences` (shards by user) in memory, and the one place that knows which items belong to which split.

A user's items are in time order; the first `num_train` are for training, the next `num_validation` for validation, the
rest for test. Everything that must not see the future asks this class, never the columns.
"""

from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.artifacts import RunFolder, StageFolder
from sracl_dist.columns import ITEM, ITEMS, NUM_TRAIN, NUM_VALIDATION, PLACE, TIME, TIMES, USER
from sracl_dist.data.histories import Histories
from sracl_dist.data.splits import leave_last_out
from sracl_dist.errors import StorageError
from sracl_dist.shards import committed_shards

Split = Literal["validation", "test"]
SEQUENCES = "sequences"
"""Folder of the table's shards within the stage."""
NUMBERS = tuple(f"{name}.list.element" for name in (ITEMS, TIMES))
"""Leaf columns that are written with their bytes split."""
ADDED = "added"
"""Folder of events that were added since, a file for each addition: user, place in the history, item, time."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Histories of all users, one after the other."""

    offsets: NDArray[np.int64]
    """[U + 1]: user u's items are items[offsets[u] : offsets[u + 1]]."""
    items: NDArray[np.int32]
    """Dense item ids 1..V, in time order within a user."""
    num_train: NDArray[np.int32]
    """[U]: how many of a user's items are for training."""
    num_validation: NDArray[np.int32]
    """[U]: how many of the following are for validation."""
    num_items: int
    """Catalogue size V."""

    @property
    def num_users(self) -> int:
        """Number of users U; users are 0..U-1."""
        return len(self.num_train)

    def training(self, user: int) -> NDArray[np.int32]:
        """The user's training items, oldest first."""
        start = self.offsets[user]
        return self.items[start : start + self.num_train[user]]

    def context(self, user: int, split: Split) -> NDArray[np.int32]:
        """Items before the target of the split: training items, and for test also the validation items."""
        start = self.offsets[user]
        return self.items[start : start + self._num_context(split)[user]]

    def contexts(self, users: NDArray[np.int64], split: Split) -> Histories:
        """The contexts of many users, in the order given."""
        return Histories.gather(self.items, self.offsets[users], self._num_context(split)[users])

    def whole(self, user: int) -> NDArray[np.int32]:
        """Every item of the user; only for recommendations after the split is of no more concern."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def histories(self, users: NDArray[np.int64]) -> Histories:
        """Every item of many users, in the order given; see `whole`."""
        return Histories.gather(self.items, self.offsets[users], self.offsets[users + 1] - self.offsets[users])

    def targets(self, split: Split) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Users that can be evaluated, ascending, and each one's target: the first item of the split's period.

        A user needs an item in the period and at least one before it.
        """
        context = self._num_context(split)
        lengths = np.diff(self.offsets)
        num_in_split = self.num_validation if split == "validation" else lengths - context
        users = np.flatnonzero((num_in_split > 0) & (context > 0)).astype(np.int64)
        return users, self.items[self.offsets[users] + context[users]]

    def training_counts(self) -> NDArray[np.int64]:
        """[V + 1]: training interactions of every item, 0 for PAD."""
        lengths = np.diff(self.offsets)
        position = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], lengths)
        training = self.items[position < np.repeat(self.num_train, lengths)]
        return np.bincount(training, minlength=self.num_items + 1)

    def _num_context(self, split: Split) -> NDArray[np.int32]:
        return self.num_train if split == "validation" else self.num_train + self.num_validation

    def to_table(
        self, times: SequenceOf[int] | NDArray[np.int64] | None = None, users: NDArray[np.integer] | None = None
    ) -> pa.Table:
        """The Arrow table; `times` runs parallel to `items`, and the users are 0..U-1 unless others are given."""
        if users is None:
            users = np.arange(self.num_users)
        offsets = pa.array(self.offsets, pa.int64())
        columns = {
            USER: pa.array(users, pa.int64()),
            ITEMS: pa.LargeListArray.from_arrays(offsets, pa.array(self.items, pa.int32())),
            NUM_TRAIN: pa.array(self.num_train, pa.int32()),
            NUM_VALIDATION: pa.array(self.num_validation, pa.int32()),
        }
        if times is None:
            columns[TIMES] = pa.nulls(self.num_users, pa.large_list(pa.int64()))
        else:
            columns[TIMES] = pa.LargeListArray.from_arrays(offsets, pa.array(times, pa.int64()))
        return pa.table(columns)


@dataclass(frozen=True, kw_only=True)
class SequenceRows:
    """Rows of the table for some users."""

    users: NDArray[np.int64]
    """[N] dense ids, ascending."""
    lengths: NDArray[np.int32]
    """[N] events of each."""
    items: NDArray[np.int32]
    """Items of all of them, one user after the other."""
    times: NDArray[np.int64] | None
    """Times in the same order; None where they are not read."""
    num_train: NDArray[np.int32]
    """[N]"""
    num_validation: NDArray[np.int32]
    """[N]"""


def read_sequence_rows(folder: StageFolder, wanted: NDArray[np.bool_], *, with_times: bool = False) -> SequenceRows:
    """Rows of the wanted users, with the events that were added since.

    Args:
        folder: the stage prepare.
        wanted: [U] which users.
        with_times: whether times are read; the log must have some.

    Raises:
        StorageError: a user is missing, twice there, or none of the stage's.
    """
    users = np.flatnonzero(wanted)
    row_of = np.cumsum(wanted) - 1
    lengths, num_train, num_validation = (np.zeros(len(users), np.int32) for _ in range(3))
    parts = []
    for shard in committed_shards(folder, SEQUENCES):
        if not wanted[shard.start : shard.stop].any():
            continue
        columns = [USER, ITEMS, NUM_TRAIN, NUM_VALIDATION, *([TIMES] if with_times else [])]
        table = folder.read_table(shard.name, columns).combine_chunks()
        own = table[USER].to_numpy()
        if not np.array_equal(own, np.arange(shard.start, shard.stop)) or shard.stop > len(wanted):
            raise _damaged(folder)
        if not wanted[own].all():
            table = table.filter(pa.array(wanted[own])).combine_chunks()
        lists, rows = table[ITEMS].chunk(0), row_of[table[USER].to_numpy()]
        lengths[rows] = np.diff(lists.offsets.to_numpy())
        num_train[rows], num_validation[rows] = table[NUM_TRAIN].to_numpy(), table[NUM_VALIDATION].to_numpy()
        times = table[TIMES].chunk(0).flatten().to_numpy() if with_times else None
        parts.append((lists.flatten().to_numpy(), times))
    # Shards follow each other by user, and so do their events.
    items = np.concatenate([np.zeros(0, np.int32), *(part[0] for part in parts)])
    all_times = np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)]) if with_times else None
    del parts
    found = SequenceRows(
        users=users,
        lengths=lengths,
        items=items,
        times=all_times,
        num_train=num_train,
        num_validation=num_validation,
    )
    for name in folder.files(ADDED):
        found = _with_added(found, folder.read_table(name), row_of, wanted)
    if not found.lengths.all():
        raise _damaged(folder)
    return found


def _damaged(folder: StageFolder) -> StorageError:
    return StorageError(f"{folder.shown(SEQUENCES)} does not list every user once in order; run jobs/prepare.py again.")


def _with_added(
    histories: SequenceRows, added: pa.Table, row_of: NDArray[np.int64], wanted: NDArray[np.bool_]
) -> SequenceRows:
    """The histories with the events of one addition at their places, and split anew where there are some."""
    users = added[USER].to_numpy()
    chosen = wanted[users]
    if not chosen.any():
        return histories
    rows, places = row_of[users[chosen]], added[PLACE].to_numpy()[chosen]
    lengths = histories.lengths + np.bincount(rows, minlength=len(histories.lengths)).astype(np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    is_new = np.zeros(int(lengths.sum(dtype=np.int64)), dtype=np.bool_)
    is_new[starts[rows] + places] = True
    items = np.empty(len(is_new), np.int32)
    items[~is_new], items[is_new] = histories.items, added[ITEM].to_numpy()[chosen]
    times = None
    if histories.times is not None:
        times = np.empty(len(is_new), np.int64)
        times[~is_new], times[is_new] = histories.times, added[TIME].to_numpy()[chosen]
    changed = np.unique(rows)
    split = leave_last_out(lengths[changed])
    num_train, num_validation = histories.num_train.copy(), histories.num_validation.copy()
    num_train[changed], num_validation[changed] = split.num_train, split.num_validation
    return SequenceRows(
        users=histories.users,
        lengths=lengths,
        items=items,
        times=times,
        num_train=num_train,
        num_validation=num_validation,
    )


def load_sequences(run: RunFolder) -> Sequences:
    """Read what prepare wrote: 4 bytes for each event and 16 for each user, and for a moment twice that.

    Raises:
        StorageError: the table is not the one its manifest describes.
    """
    folder = run.stage("prepare")
    manifest = folder.manifest()
    if manifest is None:
        raise StorageError(f"{folder.shown()} is not finished; run jobs/prepare.py again.")
    found = read_sequence_rows(folder, np.ones(manifest.rows["users"], dtype=np.bool_))
    return Sequences(
        offsets=np.concatenate([[0], np.cumsum(found.lengths, dtype=np.int64)]),
        items=found.items,
        num_train=found.num_train,
        num_validation=found.num_validation,
        num_items=manifest.rows["items"],
    )
