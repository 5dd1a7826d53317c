"""What the model reads beside a batch: neighbour tables, vectors and training histories, indexed by id.

V catalogue, U users, K neighbours, P width of the vectors, M training positions asked for, N items of all users.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from sracl_dist.columns import KEY, MISSING, NEIGHBOURS
from sracl_dist.errors import StorageError
from sracl_dist.model.rows import Rows
from sracl_dist.model.vectors_on_disk import read_vectors
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.sequences import Sequences
from sracl_dist.shared_arrays import Room, shared_arrays


@dataclass(frozen=True, kw_only=True)
class SemanticTables:
    """Tables of the stages embed and neighbours, each read when it is first asked for, and the training histories."""

    run: RunFolder
    sequences: Sequences

    @property
    def num_users(self) -> int:
        """Number of users U."""
        return self.sequences.num_users

    @property
    def num_items(self) -> int:
        """Catalogue size V."""
        return self.sequences.num_items

    @cached_property
    def item_neighbours(self) -> NDArray[np.int32]:
        """[V + 1, K]: near items of each item, MISSING where there are fewer; the row of PAD holds none.

        Raises:
            StorageError: the table does not have every item once, or names an item that does not exist.
        """
        folder, name = self.run.stage("neighbours"), "items.parquet"
        table = folder.read_table(name, [KEY, NEIGHBOURS])
        found_VK = _by_key(folder, name, table, NEIGHBOURS, 1, self.num_items)
        _require_ids(folder, name, found_VK, 1, self.num_items)
        pad_1K = np.full((1, found_VK.shape[1]), MISSING, dtype=np.int32)
        return np.concatenate([pad_1K, found_VK.astype(np.int32)])

    @cached_property
    def user_neighbours(self) -> NDArray[np.int32]:
        """[U, K]: near users of each user, MISSING where there are fewer; one copy for all processes of the machine.

        Raises:
            StorageError: the table does not have every user once, or names a user that does not exist.
        """
        folder, name, num_users = self.run.stage("neighbours"), "users.parquet", self.num_users

        def fill(room: Room) -> None:
            table = folder.read_table(name, [KEY, NEIGHBOURS])
            found_UK = _by_key(folder, name, table, NEIGHBOURS, 0, num_users)
            _require_ids(folder, name, found_UK, 0, num_users)
            room.add(NEIGHBOURS, np.int32, found_UK.shape)[:] = found_UK

        return shared_arrays("neighbours-of-users", f"{folder.signature([name])} {num_users}", fill)[NEIGHBOURS]

    @cached_property
    def user_vectors(self) -> NDArray[np.float32]:
        """[U, P]: unit vector of every user's profile.

        Raises:
            StorageError: the table does not have every user once, or holds values that are no numbers.
        """
        return self._vectors("users", 0, self.num_users)

    @cached_property
    def item_vectors(self) -> NDArray[np.float32]:
        """[V + 1, P]: unit vector of every item's text; the row of PAD is zero.

        Raises:
            StorageError: the table does not have every item once, or holds values that are no numbers.
        """
        return self._vectors("items", 1, self.num_items)

    def _vectors(self, kind: str, first: int, num: int) -> NDArray[np.float32]:
        return read_vectors(self.run.stage("embed"), kind, first, num)

    @cached_property
    def training_counts(self) -> NDArray[np.int64]:
        """[V + 1]: training interactions of every item, 0 for PAD."""
        return self.sequences.training_counts()

    @cached_property
    def target_counts(self) -> NDArray[np.int64]:
        """[V + 1]: how many training targets every item is; a user's first item is none."""
        return self.training_counts - self.sequences.first_counts()

    def latest_training_rows(self, users: NDArray[np.int64], max_length: int) -> Rows:
        """The latest training items of each user, who has at least one."""
        stops = self.sequences.offsets[users] + self.sequences.num_train[users]
        return self._rows(stops, np.minimum(self.sequences.num_train[users], max_length))

    def rows_before(self, places_M: NDArray[np.int64], max_length: int) -> Rows:
        """The latest items of the same user before each place among the items of all users, at least one."""
        users_M = np.searchsorted(self.sequences.offsets, places_M, side="right") - 1
        return self._rows(places_M, np.minimum(places_M - self.sequences.offsets[users_M], max_length))

    def same_target_places(self, places_M: NDArray[np.int64], draws_M: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each training target another one that is the same item, or itself where there is no other.

        Args:
            places_M: places of the targets among the items of all users.
            draws_M: random numbers in [0, 1), one for each choice.
        """
        places_N, first_V = self._targets_by_item
        items_M = self.sequences.items[places_M]
        first_M, num_M = first_V[items_M], first_V[items_M + 1] - first_V[items_M]
        chosen_M = first_M + np.minimum((draws_M * (num_M - 1)).astype(np.int64), np.maximum(num_M - 2, 0))
        # The own place is skipped, so that each of the others is as likely as the next.
        own_M = first_M + _place_in_groups(places_N, first_M, num_M, places_M)
        return places_N[np.where((num_M > 1) & (chosen_M >= own_M), chosen_M + 1, chosen_M)]

    @cached_property
    def _targets_by_item(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Places of all training targets, item by item, ascending within; and where each item's begin."""
        sequences = self.sequences
        position_N = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], np.diff(sequences.offsets))
        is_target_N = (position_N > 0) & (position_N < np.repeat(sequences.num_train, np.diff(sequences.offsets)))
        places_N = np.flatnonzero(is_target_N)
        items_N = sequences.items[places_N]
        first_V = np.concatenate([[0], np.cumsum(np.bincount(items_N, minlength=self.num_items + 1))])
        return places_N[np.argsort(items_N, kind="stable")], first_V

    def _rows(self, stops: NDArray[np.int64], lengths: NDArray[np.integer]) -> Rows:
        lengths = lengths.astype(np.int64)
        shift = np.repeat(stops - np.cumsum(lengths), lengths)
        items = self.sequences.items[np.arange(int(lengths.sum())) + shift]
        return Rows(items_T=torch.from_numpy(items.astype(np.int64)), lengths_B=torch.from_numpy(lengths))


def tensor_of(array: NDArray[Any]) -> torch.Tensor:
    """A tensor over the memory of an array, which nobody may write to if the array says so: PyTorch cannot tell."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def random_others(table_NK: NDArray[np.int32], first: int, num: int, seed: int) -> NDArray[np.int32]:
    """A table of the same form with random ids first .. first + num - 1 for those that are there, drawn once.

    Row n belongs to the id n and does not name it.
    """
    ids_N1 = np.arange(len(table_NK))[:, None]
    shift_NK = np.random.default_rng(seed).integers(1, max(2, num), table_NK.shape)
    others_NK = first + (ids_N1 - first + shift_NK) % num
    return np.where(table_NK == MISSING, MISSING, others_NK).astype(table_NK.dtype)


def _place_in_groups(
    sorted_N: NDArray[np.int64], first_M: NDArray[np.int64], num_M: NDArray[np.int64], wanted_M: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Index of each wanted value in its ascending group sorted_N[first : first + num]; all are bisected at once."""
    low_M, high_M = np.zeros_like(num_M), num_M.copy()
    while (low_M < high_M).any():
        middle_M = (low_M + high_M) // 2
        open_M = low_M < high_M
        below_M = open_M & (sorted_N[first_M + np.minimum(middle_M, num_M - 1)] < wanted_M)
        low_M = np.where(below_M, middle_M + 1, low_M)
        high_M = np.where(open_M & ~below_M, middle_M, high_M)
    return low_M


def _by_key(folder: StageFolder, name: str, table: pa.Table, column: str, first: int, num: int) -> NDArray[Any]:
    """Rows of a fixed-size list column, ordered by key; keys must be first .. first + num - 1, each once."""
    table = table.combine_chunks()
    keys = table[KEY].to_numpy()
    order = np.argsort(keys, kind="stable")
    if not np.array_equal(keys[order], np.arange(first, first + num)):
        raise StorageError(
            f"{folder.shown(name)} has {len(np.unique(keys)):,} different keys in {len(keys):,} rows where the run has "
            f"{num:,} ids from {first}; {folder.anew}."
        )
    lists = table[column]
    if table.num_rows == 0:
        return np.zeros((0, lists.type.list_size))
    values: NDArray[Any] = lists.chunk(0).flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(keys), -1)[order]


def _require_ids(folder: StageFolder, name: str, ids: NDArray[Any], first: int, num: int) -> None:
    wrong = ids[(ids != MISSING) & ((ids < first) | (ids >= first + num))]
    if wrong.size:
        raise StorageError(
            f"{folder.shown(name)} names the neighbour {wrong[0]} where ids run from {first} to {first + num - 1}; "
            f"{folder.anew}."
        )
