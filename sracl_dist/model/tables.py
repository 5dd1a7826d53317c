"""What the objectives read beside the histories: neighbour tables and profile vectors as arrays indexed by id.

V catalogue, U users, K neighbours, P width of the profile vectors.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.artifacts import RunFolder, StageFolder
from sracl_dist.columns import KEY, MISSING, NEIGHBOURS, VECTOR
from sracl_dist.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class SemanticTables:
    """Tables of the stages embed and neighbours, each read when it is first asked for."""

    run: RunFolder
    num_users: int
    num_items: int

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
        """[U, K]: near users of each user, MISSING where there are fewer.

        Raises:
            StorageError: the table does not have every user once, or names a user that does not exist.
        """
        folder, name = self.run.stage("neighbours"), "users.parquet"
        table = folder.read_table(name, [KEY, NEIGHBOURS])
        found_UK = _by_key(folder, name, table, NEIGHBOURS, 0, self.num_users)
        _require_ids(folder, name, found_UK, 0, self.num_users)
        return found_UK.astype(np.int32)

    @cached_property
    def user_vectors(self) -> NDArray[np.float32]:
        """[U, P]: unit vector of every user's profile.

        Raises:
            StorageError: the table does not have every user once, or holds values that are no numbers.
        """
        folder, name = self.run.stage("embed"), "users/"
        table = folder.read_shards(name, [KEY, VECTOR])
        found_UP = _by_key(folder, name, table, VECTOR, 0, self.num_users).astype(np.float32)
        if not np.isfinite(found_UP).all():
            raise StorageError(f"{folder.path(name)} holds vectors that are not finite; run jobs/embed.py again.")
        return found_UP


def _by_key(folder: StageFolder, name: str, table: pa.Table, column: str, first: int, num: int) -> NDArray[Any]:
    """Rows of a fixed-size list column, ordered by key; keys must be first .. first + num - 1, each once."""
    table = table.combine_chunks()
    keys = table[KEY].to_numpy()
    order = np.argsort(keys, kind="stable")
    if not np.array_equal(keys[order], np.arange(first, first + num)):
        raise StorageError(
            f"{folder.path(name)} has {len(np.unique(keys)):,} different keys in {len(keys):,} rows where the run has "
            f"{num:,} ids from {first}; run jobs/{folder.name}.py again."
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
            f"{folder.path(name)} names the neighbour {wrong[0]} where ids run from {first} to {first + num - 1}; "
            f"run jobs/{folder.name}.py again."
        )
