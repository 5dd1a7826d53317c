"""The user's own ids and the dense ones: maps made by prepare, looked up wherever the outside world is met."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import ITEM, ITEM_ID, USER, USER_ID
from sracl_dist.errors import InputError, StorageError

ITEMS_TABLE = "items.parquet"
USERS_TABLE = "users.parquet"
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
        if isinstance(ids, pa.ChunkedArray):
            ids = ids.combine_chunks()
        self._ids = pa.array(ids, pa.string()) if not isinstance(ids, pa.Array) else ids.cast(pa.string())
        self._first, self._noun = first, noun

    def __len__(self) -> int:
        return len(self._ids)

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
        asked = pa.array(ids, pa.string())
        places = pc.index_in(asked, self._ids)
        unknown = asked.filter(pc.is_null(places))
        dense = places.drop_null().to_numpy().astype(np.int64) + self._first
        return dense, list(dict.fromkeys(unknown.to_pylist()))

    def external(self, dense: Sequence[int] | NDArray[np.integer]) -> pa.Array:
        """External ids in the order asked for, as strings.

        Args:
            dense: [N] dense ids, in any order and any number of times.

        Raises:
            InputError: one is out of range, as PAD is among items.
        """
        places = np.asarray(dense, dtype=np.int64) - self._first
        outside = (places < 0) | (places >= len(self))
        if outside.any():
            raise InputError(
                f"The dense {self._noun} id {int(places[outside][0]) + self._first} is outside of {self._first}.."
                f"{self._first + len(self) - 1}; use the tables of one run together."
            )
        return self._ids.take(pa.array(places))


def load_item_ids(run: RunFolder) -> IdMap:
    """Items of a prepared run, 1..V.

    Raises:
        StorageError: the table is missing or does not list every item once.
    """
    return _load(run, ITEMS_TABLE, ITEM, ITEM_ID, first=1, noun="item")


def load_user_ids(run: RunFolder) -> IdMap:
    """Users of a prepared run, 0..U-1.

    Raises:
        StorageError: the table is missing or does not list every user once.
    """
    return _load(run, USERS_TABLE, USER, USER_ID, first=0, noun="user")


def _load(run: RunFolder, name: str, dense: str, external: str, *, first: int, noun: str) -> IdMap:
    folder = run.stage("prepare")
    table = folder.read_table(name, [dense, external]).sort_by(dense)
    if not np.array_equal(table[dense].to_numpy(), np.arange(first, first + table.num_rows)):
        raise StorageError(f"{folder.path(name)} does not list every {noun} once; run jobs/prepare.py again.")
    return IdMap(table[external], first=first, noun=noun)
