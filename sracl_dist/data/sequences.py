"""The table `sequences` (shards by user) in memory, and the one place that knows which items belong to which split.

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

from sracl_dist.artifacts import RunFolder, StageFolder
from sracl_dist.columns import ITEMS, NUM_TRAIN, NUM_VALIDATION, TIMES, USER
from sracl_dist.data.histories import Histories
from sracl_dist.errors import StorageError
from sracl_dist.shards import committed_shards

Split = Literal["validation", "test"]
SEQUENCES = "sequences"
"""Folder of the table's shards within the stage."""
NUMBERS = tuple(f"{name}.list.element" for name in (ITEMS, TIMES))
"""Leaf columns that are written with their bytes split."""
CHANGED = "changed"
"""Folder of rows that stand in the place of earlier ones, since files were added to the log; later names count more."""


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
    """Rows of the table for some users, in any order."""

    users: NDArray[np.int64]
    """[N] dense ids."""
    lengths: NDArray[np.int32]
    """[N] events of each."""
    items: NDArray[np.int32]
    """Items of all of them, one user after the other."""
    times: NDArray[np.int64] | None
    """Times in the same order; None where they are not read or there are none."""
    num_train: NDArray[np.int32]
    """[N]"""
    num_validation: NDArray[np.int32]
    """[N]"""


def read_sequence_rows(
    folder: StageFolder, wanted: NDArray[np.bool_], *, with_times: bool = False
) -> Iterator[SequenceRows]:
    """Rows of the wanted users, each once, with what later additions to the log have changed.

    Args:
        folder: the stage prepare.
        wanted: [U] which users.
        with_times: whether times are read.

    Raises:
        StorageError: a user is missing or is none of the stage's.
    """
    wanted, num_missing = wanted.copy(), int(wanted.sum())
    names = [shard.name for shard in committed_shards(folder, SEQUENCES)]
    for name in [*reversed(folder.files(CHANGED)), *names]:
        columns = [USER, ITEMS, NUM_TRAIN, NUM_VALIDATION, *([TIMES] if with_times else [])]
        table = folder.read_table(name, columns).combine_chunks()
        users = table[USER].to_numpy()
        if len(users) and (users.min() < 0 or users.max() >= len(wanted)):
            break
        chosen = wanted[users]
        wanted[users[chosen]] = False
        num_missing -= int(chosen.sum())
        if not chosen.all():
            table = table.filter(pa.array(chosen)).combine_chunks()
        if table.num_rows:
            yield _rows_of(table, with_times=with_times)
    if wanted.any() or num_missing:
        raise StorageError(
            f"{folder.path(SEQUENCES)} does not list every user once in order; run jobs/prepare.py again."
        )


def _rows_of(table: pa.Table, *, with_times: bool) -> SequenceRows:
    lists = table[ITEMS].chunk(0)
    times = table[TIMES].chunk(0) if with_times else None
    return SequenceRows(
        users=table[USER].to_numpy(),
        lengths=np.diff(lists.offsets.to_numpy()).astype(np.int32),
        items=lists.flatten().to_numpy(),
        times=None if times is None or times.null_count else times.flatten().to_numpy(),
        num_train=table[NUM_TRAIN].to_numpy(),
        num_validation=table[NUM_VALIDATION].to_numpy(),
    )


def load_sequences(run: RunFolder) -> Sequences:
    """Read what prepare wrote: 4 bytes for each event and 16 for each user, and for a moment twice that.

    Raises:
        StorageError: the table is not the one its manifest describes.
    """
    folder = run.stage("prepare")
    manifest = folder.manifest()
    if manifest is None:
        raise StorageError(f"{folder.path()} is not finished; run jobs/prepare.py again.")
    num_users = manifest.rows["users"]
    parts = list(read_sequence_rows(folder, np.ones(num_users, dtype=np.bool_)))
    lengths, num_train, num_validation = (np.zeros(num_users, np.int32) for _ in range(3))
    for part in parts:
        lengths[part.users] = part.lengths
        num_train[part.users], num_validation[part.users] = part.num_train, part.num_validation
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    items = np.empty(offsets[-1], np.int32)
    while parts:
        part = parts.pop()
        items[ragged_places(offsets[part.users], part.lengths)] = part.items
    return Sequences(
        offsets=offsets,
        items=items,
        num_train=num_train,
        num_validation=num_validation,
        num_items=manifest.rows["items"],
    )


def ragged_places(starts: NDArray[np.int64], lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    """Places starts[i] .. starts[i] + lengths[i] - 1 for one i after the other.

    >>> ragged_places(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    places: NDArray[np.int64] = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)
    return places
