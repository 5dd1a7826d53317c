"""The user's own ids and the dense ones: maps made by prepare, looked up wherever the outside world is met."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, ITEM_ID, USER, USER_ID
from sracl_dist.errors import InputError, StorageError
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.shards import Shard, committed_shards

ITEMS_TABLE = "items.parquet"
USERS = "users"
"""Folder of the shards `users/<first>-<end>.parquet`."""
_NUM_NAMED = 5


class IdMap:
    """External strings and dense integers `first .. first + len - 1`, both ways; it never changes.

    >>> ids = IdMap(["a", "b"], first=1, noun="item")
    >>> ids.dense(["b", "a"]).tolist()
    [2, 1]
    >>> ids.known(["b", "x"])
    (array([2]), ['x'])
    >>> ids.external(np.array([2, 1])).to_pylist()
    ['b', 'a']
    """

    def __init__(self, ids: Sequence[str] | pa.Array | pa.ChunkedArray, *, first: int, noun: str) -> None:
        """Map the ids to integers in their order.

        Args:
            ids: external ids, each once.
            first: dense id of the first.
            noun: what they identify, for messages.
        """
        if not isinstance(ids, pa.Array | pa.ChunkedArray):
            ids = pa.array(ids, pa.string())
        ids = ids.cast(pa.large_string())
        self._ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        self.first, self._noun = first, noun

    def __len__(self) -> int:
        return len(self._ids)

    def all(self) -> pa.Array:
        """[N] the external ids in the order of the dense ones, as large strings."""
        return self._ids

    def dense(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Dense ids in the order asked for.

        Raises:
            InputError: some are unknown; names the first of them.
        """
        dense, unknown = self.known(ids)
        if unknown:
            named = ", ".join(repr(each) for each in unknown[:_NUM_NAMED])
            more = f" and {len(unknown) - _NUM_NAMED:,} more" if len(unknown) > _NUM_NAMED else ""
            raise InputError(
                f"The {self._noun} ids {named}{more} are not among the {len(self):,} of this run; use ids of "
                f"interactions that prepare kept."
            )
        return dense

    def known(self, ids: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Dense ids of the known ones in the order asked for, and the unknown ones, each once."""
        asked = pa.array(ids, pa.large_string())
        # A hash table of what is asked for is smaller than one of all ids.
        distinct = asked.unique()
        found = pc.index_in(self._ids, distinct)
        places = np.full(len(distinct), -1, dtype=np.int64)
        places[found.drop_null().to_numpy()] = np.flatnonzero(found.is_valid())
        dense = places[pc.index_in(asked, distinct).to_numpy()]
        return dense[dense >= 0] + self.first, distinct.filter(pa.array(places < 0)).to_pylist()

    def external(self, dense: Sequence[int] | NDArray[np.integer]) -> pa.Array:
        """External ids in the order asked for, as strings.

        Args:
            dense: [N] dense ids, in any order and any number of times.

        Raises:
            InputError: one is out of range, as PAD is among items.
        """
        places = np.asarray(dense, dtype=np.int64) - self.first
        outside = (places < 0) | (places >= len(self))
        if outside.any():
            raise InputError(
                f"The dense {self._noun} id {int(places[outside][0]) + self.first} is outside of {self.first}.."
                f"{self.first + len(self) - 1}; use the tables of one run together."
            )
        return self._ids.take(pa.array(places)).cast(pa.string())


def load_item_ids(run: RunFolder) -> IdMap:
    """Items of a prepared run, 1..V.

    Raises:
        StorageError: the table is missing or does not list every item once.
    """
    folder = run.stage("prepare")
    return _id_map(folder.read_table(ITEMS_TABLE, [ITEM, ITEM_ID]), folder, ITEMS_TABLE, first=1, noun=ITEM)


def load_user_ids(run: RunFolder, users: Shard | None = None) -> IdMap:
    """Users of a prepared run, 0..U-1, or those of a shard, for which only the files that hold them are read.

    Raises:
        StorageError: the table is missing or does not list every user once.
    """
    folder = run.stage("prepare")
    if users is None:
        table, first = folder.read_shards(f"{USERS}/", [USER, USER_ID]), 0
    else:
        first, is_wanted = users.start, (pc.field(USER) >= users.start) & (pc.field(USER) < users.stop)
        parts = [each for each in committed_shards(folder, USERS) if each.start < users.stop and each.stop > first]
        tables = [folder.read_table(part.name, [USER, USER_ID], is_wanted) for part in parts]
        num_rows = sum(part.num_rows for part in tables)
        if num_rows != users.num_rows:
            raise StorageError(
                f"{folder.shown(USERS)} lists {num_rows:,} of the {users.num_rows:,} users from {first} on; "
                f"{folder.anew}."
            )
        table = pa.concat_tables(tables)
    return _id_map(table, folder, USERS, first=first, noun=USER)


def _id_map(table: pa.Table, folder: StageFolder, name: str, *, first: int, noun: str) -> IdMap:
    numbers = table[noun].to_numpy()
    if not np.array_equal(numbers, np.arange(first, first + len(numbers))):
        order = np.argsort(numbers, kind="stable")
        if not np.array_equal(numbers[order], np.arange(first, first + len(numbers))):
            raise StorageError(f"{folder.shown(name)} does not list every {noun} once; {folder.anew}.")
        table = table.take(pa.array(order))
    return IdMap(table[f"{noun}_id"], first=first, noun=noun)
