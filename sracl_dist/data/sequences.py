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

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import ITEMS, NUM_TRAIN, NUM_VALIDATION, TIMES, USER
from sracl_dist.data.histories import Histories
from sracl_dist.errors import StorageError
from sracl_dist.shards import committed_shards

Split = Literal["validation", "test"]
SEQUENCES = "sequences"
"""Folder of the table's shards within the stage."""


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

    def to_table(self, times: SequenceOf[int] | NDArray[np.int64] | None = None, first_user: int = 0) -> pa.Table:
        """The Arrow table; `times` runs parallel to `items`, and users count from `first_user`."""
        offsets = pa.array(self.offsets, pa.int64())
        columns = {
            USER: pa.array(np.arange(first_user, first_user + self.num_users, dtype=np.int64)),
            ITEMS: pa.LargeListArray.from_arrays(offsets, pa.array(self.items, pa.int32())),
            NUM_TRAIN: pa.array(self.num_train, pa.int32()),
            NUM_VALIDATION: pa.array(self.num_validation, pa.int32()),
        }
        if times is None:
            columns[TIMES] = pa.nulls(self.num_users, pa.large_list(pa.int64()))
        else:
            columns[TIMES] = pa.LargeListArray.from_arrays(offsets, pa.array(times, pa.int64()))
        return pa.table(columns)


def load_sequences(run: RunFolder) -> Sequences:
    """Read what prepare wrote: 4 bytes for each event and 16 for each user, and for a moment twice that.

    Raises:
        StorageError: the table is not the one its manifest describes.
    """
    folder = run.stage("prepare")
    manifest = folder.manifest()
    if manifest is None:
        raise StorageError(f"{folder.path()} is not finished; run jobs/prepare.py again.")
    lengths, items, num_train, num_validation = [], [], [], []
    num_users = 0
    for shard in committed_shards(folder, SEQUENCES):
        table = folder.read_table(shard.name, [USER, ITEMS, NUM_TRAIN, NUM_VALIDATION]).combine_chunks()
        if not np.array_equal(table[USER].to_numpy(), np.arange(num_users, num_users + table.num_rows)):
            break
        num_users += table.num_rows
        lists = table[ITEMS].chunk(0)
        lengths.append(np.diff(lists.offsets.to_numpy()).astype(np.int32))
        items.append(lists.flatten().to_numpy())
        num_train.append(table[NUM_TRAIN].to_numpy())
        num_validation.append(table[NUM_VALIDATION].to_numpy())
    if num_users != manifest.rows["users"]:
        raise StorageError(
            f"{folder.path(SEQUENCES)} does not list every user once in order; run jobs/prepare.py again."
        )
    return Sequences(
        offsets=np.concatenate([[0], np.cumsum(_joined(lengths), dtype=np.int64)]).astype(np.int64),
        items=_joined(items),
        num_train=_joined(num_train),
        num_validation=_joined(num_validation),
        num_items=manifest.rows["items"],
    )


def _joined(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate([np.zeros(0, np.int32), *parts])
