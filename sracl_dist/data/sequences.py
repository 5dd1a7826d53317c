"""The table `sequences` (shards by user) as arrays, and the one place that knows which items belong to which split.

A user's items are in time order; the first `num_train` are for training, the next `num_validation` for validation, the
rest for test. Everything that must not see the future asks this class, never the columns.
"""

from collections.abc import Iterator
from collections.abc import Sequence as SequenceOf
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, ITEMS, NUM_TRAIN, NUM_VALIDATION, PLACE, TIME, TIMES, USER
from sracl_dist.data.histories import Histories
from sracl_dist.data.splits import leave_last_out
from sracl_dist.errors import StorageError
from sracl_dist.run_folder import MANIFEST, RunFolder, StageFolder
from sracl_dist.shards import Shard, committed_shards
from sracl_dist.shared_arrays import Room, shared_arrays

Split = Literal["validation", "test"]
SEQUENCES = "sequences"
"""Folder of the table's shards within the stage."""
NUMBERS = tuple(f"{name}.list.element" for name in (ITEMS, TIMES))
"""Leaf columns that are written with their bytes split."""
USERS_PER_GROUP = 1024
"""Users of a row group in a shard: where some histories are read, others are only if they lie in the same group."""
ADDED = "added"
"""Folder of events that were added since, a file for each addition: user, place in the history, item, time."""


USERS_PER_PIECE = 1 << 19
"""Users whose items are gone through at a time where all are: places of them take twice the memory of the items."""


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
        return self._counts(self.num_train)

    def first_counts(self) -> NDArray[np.int64]:
        """[V + 1]: of how many users' training items every item is the first."""
        return self._counts(np.minimum(self.num_train, 1))

    def _counts(self, lengths_U: NDArray[np.int32]) -> NDArray[np.int64]:
        """How often every item is among the first ones of the users, so many of each; in pieces, to spare memory."""
        counts_V = np.zeros(self.num_items + 1, np.int64)
        for first in range(0, self.num_users, USERS_PER_PIECE):
            piece = slice(first, min(first + USERS_PER_PIECE, self.num_users))
            items_T = Histories.gather(self.items, self.offsets[piece], lengths_U[piece]).items_T
            counts_V += np.bincount(items_T, minlength=len(counts_V))
        return counts_V

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
    parts = list(_row_parts(folder, wanted, with_times=with_times))
    nothing = np.zeros(0, np.int32)
    return SequenceRows(
        users=np.concatenate([nothing.astype(np.int64), *(part.users for part in parts)]),
        lengths=np.concatenate([nothing, *(part.lengths for part in parts)]),
        items=np.concatenate([nothing, *(part.items for part in parts)]),
        times=np.concatenate([nothing.astype(np.int64), *(part.times for part in parts)]) if with_times else None,
        num_train=np.concatenate([nothing, *(part.num_train for part in parts)]),
        num_validation=np.concatenate([nothing, *(part.num_validation for part in parts)]),
    )


def _row_parts(folder: StageFolder, wanted: NDArray[np.bool_], *, with_times: bool = False) -> Iterator[SequenceRows]:
    """The rows of `read_sequence_rows`, shard by shard, and behind them those of users who are in added files alone."""
    added = [folder.read_table(name) for name in folder.files(ADDED)]
    stop = 0
    for shard in committed_shards(folder, SEQUENCES):
        if shard.start != stop or shard.stop > len(wanted):
            raise _damaged(folder)
        stop = shard.stop
        own = wanted[shard.start : stop]
        if own.any():
            yield _with_all_added(
                folder, _shard_rows(folder, shard, own, with_times=with_times), added, shard.start, own
            )
    if wanted[stop:].any():
        users = stop + np.flatnonzero(wanted[stop:])
        yield _with_all_added(folder, _without_events(users, with_times=with_times), added, stop, wanted[stop:])


def _shard_rows(folder: StageFolder, shard: Shard, wanted: NDArray[np.bool_], *, with_times: bool) -> SequenceRows:
    """Rows of one shard for those of its users that are wanted."""
    columns = [USER, ITEMS, NUM_TRAIN, NUM_VALIDATION, *([TIMES] if with_times else [])]
    table = folder.read_rows(shard.name, wanted, columns).combine_chunks()
    if not np.array_equal(table[USER].to_numpy(), shard.start + np.flatnonzero(wanted)):
        raise _damaged(folder)
    lists = table[ITEMS].chunk(0)
    return SequenceRows(
        users=table[USER].to_numpy(),
        lengths=np.diff(lists.offsets.to_numpy()).astype(np.int32),
        items=lists.flatten().to_numpy(),
        times=table[TIMES].chunk(0).flatten().to_numpy() if with_times else None,
        num_train=table[NUM_TRAIN].to_numpy(),
        num_validation=table[NUM_VALIDATION].to_numpy(),
    )


def _without_events(users: NDArray[np.int64], *, with_times: bool) -> SequenceRows:
    zeros, nothing = np.zeros(len(users), np.int32), np.zeros(0, np.int32)
    times = nothing.astype(np.int64) if with_times else None
    return SequenceRows(users=users, lengths=zeros, items=nothing, times=times, num_train=zeros, num_validation=zeros)


def _with_all_added(
    folder: StageFolder, rows: SequenceRows, added: SequenceOf[pa.Table], first: int, wanted: NDArray[np.bool_]
) -> SequenceRows:
    """The rows of the wanted users from `first` on with all their events."""
    for addition in added:
        rows = _with_added(rows, addition, first, wanted)
    if not rows.lengths.all():
        raise _damaged(folder)
    return rows


def _damaged(folder: StageFolder) -> StorageError:
    return StorageError(f"{folder.shown(SEQUENCES)} does not list every user once in order; {folder.anew}.")


def _with_added(histories: SequenceRows, added: pa.Table, first: int, wanted: NDArray[np.bool_]) -> SequenceRows:
    """The histories with the events of one addition at their places, and split anew where there are some."""
    users = added[USER].to_numpy() - first
    chosen = (users >= 0) & (users < len(wanted))
    chosen[chosen] = wanted[users[chosen]]
    if not chosen.any():
        return histories
    rows, places = (np.cumsum(wanted) - 1)[users[chosen]], added[PLACE].to_numpy()[chosen]
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
    """What prepare wrote, in one copy for all processes of this machine, which the first of them makes shard by shard.

    It has 4 bytes for each event and 16 for each user, and they cannot be written to.

    Raises:
        StorageError: the table is not the one its manifest describes, or the machine has no room for the copy.
    """
    folder = run.stage("prepare")
    manifest = folder.manifest()
    if manifest is None:
        raise StorageError(f"{folder.shown()} is not finished; run jobs/prepare.py.")
    num_users = manifest.rows["users"]
    made_from = folder.signature([MANIFEST, f"{SEQUENCES}/", f"{ADDED}/"])
    return Sequences(
        **shared_arrays(SEQUENCES, made_from, lambda room: _fill(room, folder, num_users)),
        num_items=manifest.rows["items"],
    )


def _fill(room: Room, folder: StageFolder, num_users: int) -> None:
    """Put the arrays of Sequences there."""
    num_events = _num_events(folder)
    offsets = room.add("offsets", np.int64, (num_users + 1,))
    num_train, num_validation = (room.add(name, np.int32, (num_users,)) for name in (NUM_TRAIN, NUM_VALIDATION))
    items = room.add("items", np.int32, (num_events,))
    user, event = 0, 0
    for part in _row_parts(folder, np.ones(num_users, dtype=np.bool_)):
        users, events = slice(user, user + len(part.users)), slice(event, event + len(part.items))
        user, event = users.stop, events.stop
        if event > num_events:
            raise _damaged(folder)
        offsets[user - len(part.users) + 1 : user + 1] = events.start + np.cumsum(part.lengths, dtype=np.int64)
        num_train[users], num_validation[users], items[events] = part.num_train, part.num_validation, part.items
    if (user, event) != (num_users, num_events):
        raise _damaged(folder)


def _num_events(folder: StageFolder) -> int:
    """Events of all users, as the files tell without being read."""
    in_shards = sum(folder.num_values(shard.name, ITEMS) for shard in committed_shards(folder, SEQUENCES))
    return in_shards + sum(folder.num_values(name, ITEM) for name in folder.files(ADDED))
