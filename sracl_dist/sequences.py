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

from sracl_dist.columns import ITEMS, NUM_TRAIN, NUM_VALIDATION, TIMES, USER
from sracl_dist.errors import StorageError
from sracl_dist.histories import Histories
from sracl_dist.run_folder import MANIFEST, RunFolder, StageFolder
from sracl_dist.shards import committed_shards
from sracl_dist.shared_arrays import Room, shared_arrays

Split = Literal["validation", "test"]
SEQUENCES = "sequences"
"""Folder of the table's shards within the stage."""
NUMBERS = tuple(f"{name}.list.element" for name in (ITEMS, TIMES))
"""Leaf columns that are written with their bytes split."""
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


def _shards(folder: StageFolder, num_users: int) -> Iterator[pa.Table]:
    """The shards of the table, which list every user once in order.

    Raises:
        StorageError: they do not.
    """
    stop = 0
    for shard in committed_shards(folder, SEQUENCES):
        table = folder.read_table(shard.name, [USER, ITEMS, NUM_TRAIN, NUM_VALIDATION]).combine_chunks()
        if shard.start != stop or not np.array_equal(table[USER].to_numpy(), np.arange(shard.start, shard.stop)):
            raise _damaged(folder)
        stop = shard.stop
        yield table
    if stop != num_users:
        raise _damaged(folder)


def _damaged(folder: StageFolder) -> StorageError:
    return StorageError(f"{folder.shown(SEQUENCES)} does not list every user once in order; {folder.anew}.")


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
    made_from = folder.signature([MANIFEST, f"{SEQUENCES}/"])
    return Sequences(
        **shared_arrays(SEQUENCES, made_from, lambda room: _fill(room, folder, num_users)),
        num_items=manifest.rows["items"],
    )


def _fill(room: Room, folder: StageFolder, num_users: int) -> None:
    """Put the arrays of Sequences there."""
    num_events = sum(folder.num_values(shard.name, ITEMS) for shard in committed_shards(folder, SEQUENCES))
    offsets = room.add("offsets", np.int64, (num_users + 1,))
    num_train, num_validation = (room.add(name, np.int32, (num_users,)) for name in (NUM_TRAIN, NUM_VALIDATION))
    items = room.add("items", np.int32, (num_events,))
    user = event = 0
    for table in _shards(folder, num_users):
        lists = table[ITEMS].chunk(0)
        users, events = slice(user, user + len(table)), slice(event, event + len(lists.values))
        user, event = users.stop, events.stop
        offsets[users.start + 1 : user + 1] = events.start + lists.offsets.to_numpy()[1:]
        num_train[users], num_validation[users] = table[NUM_TRAIN].to_numpy(), table[NUM_VALIDATION].to_numpy()
        items[events] = lists.values.to_numpy()
