"""Second step over the log: users and items of all blocks numbered by first appearance, and users dealt to partitions.

Those that keep their dense ids from tables made before, if there are any, come first; see lasting_ids.

work/numbers/<split>.arrow   a group per block: the number of each of the block's users and items
work/users.arrow             a group per partition: ids of its users
work/items.arrow             one group: ids of the items, and users with more events than data.max_user_interactions
state/ids/000000.*           the ids by their hashes; see known_ids
work/numbering.json          the partitions; written last
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.data.encode import (
    ENCODED,
    ITEM_HASHES,
    ITEM_IDS,
    ITEMS,
    USER_COUNTS,
    USER_HASHES,
    USER_IDS,
    USERS,
    split_name,
)
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.groups import Group, GroupReader, open_groups, write_groups
from sracl_dist.data.known_ids import save_lookup
from sracl_dist.data.lasting_ids import load_lasting_ids
from sracl_dist.data.strings import HashKey, Register, hash_strings
from sracl_dist.observe import Progress
from sracl_dist.run_folder import StageFolder

NUMBERS = "work/numbers/"
USERS_FILE, ITEMS_FILE, SUMMARY = "work/users.arrow", "work/items.arrow", "work/numbering.json"
BUSY_USERS = "busy_users"


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """How users and items of the log are numbered, before any is removed."""

    num_items: int
    first_users: list[int]
    """[P + 1] users first_users[p] .. first_users[p + 1] - 1 are those of partition p."""

    @property
    def num_partitions(self) -> int:
        """P."""
        return len(self.first_users) - 1

    @property
    def num_users(self) -> int:
        """Users of all partitions."""
        return self.first_users[-1]


def number_all(
    folder: StageFolder,
    splits: list[FileSplit],
    num_rows: list[int],
    key: HashKey,
    partition_rows: int,
    max_user_rows: int | None,
) -> Numbering:
    """Number users and items by their first appearance in the files, those first that keep their dense ids.

    Args:
        folder: the stage.
        splits: all of them, encoded.
        num_rows: usable rows of each.
        key: with which their ids are hashed.
        partition_rows: about how many events of users a partition has.
        max_user_rows: data.max_user_interactions.

    Raises:
        StageError: two ids have the same hash.
    """
    if folder.exists(SUMMARY):
        return Numbering(**folder.read_json(SUMMARY))
    users, items, counts = _Ids(), _Ids(), _Counts()
    for ids, lasting in zip((users, items), load_lasting_ids(folder), strict=True):
        ids.add(lasting, hash_strings(lasting, key))
    progress = Progress("prepare: numbering users and items", sum(num_rows))
    for split, num in zip(splits, num_rows, strict=True):
        with open_groups(
            folder,
            split_name(ENCODED, split),
            [USER_IDS, USER_HASHES, USER_COUNTS, ITEM_IDS, ITEM_HASHES],
        ) as reader:
            write_groups(folder, split_name(NUMBERS, split), _numbers(reader, users, items, counts))
        progress.update(num, users=len(users), items=len(items))
    progress.close()
    num_events = counts.values[: len(users)]
    busy = np.flatnonzero(num_events > max_user_rows) if max_user_rows is not None else np.zeros(0, np.int64)
    numbering = Numbering(num_items=len(items), first_users=_bounds(num_events, partition_rows))
    write_groups(folder, USERS_FILE, _by_partition(users, numbering))
    write_groups(folder, ITEMS_FILE, [{ITEM_IDS: items.joined(), BUSY_USERS: busy.astype(np.int32)}])
    save_lookup(folder, 0, users.register, items.register)
    folder.write_json(SUMMARY, asdict(numbering))
    return numbering


@dataclass
class _Ids:
    """The distinct ids so far, by first appearance."""

    register: Register = field(default_factory=Register)
    parts: list[pa.Array] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.register)

    def add(self, ids: pa.LargeStringArray, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Number ids, such as a block's."""
        numbers, places = self.register.add(hashes.reshape(-1, 2))
        self.parts.append(ids.take(pa.array(places)))
        return numbers

    def joined(self) -> pa.LargeStringArray:
        """All of them, by number."""
        self.parts = [pa.concat_arrays([pa.array([], pa.large_string()), *self.parts])]
        return self.parts[0]


@dataclass
class _Counts:
    """Events of each user so far, with room for more users."""

    values: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1024, np.int64))

    def add(self, users: NDArray[np.int32], counts: NDArray[np.int32], num_users: int) -> None:
        """Count a block's events; each of its users stands in `users` once."""
        if num_users > len(self.values):
            self.values = np.concatenate([self.values, np.zeros(num_users, np.int64)])
        self.values[users] += counts


def _numbers(reader: GroupReader, users: _Ids, items: _Ids, counts: _Counts) -> Iterator[Group]:
    for block in range(len(reader)):
        own_users = users.add(reader.arrow(block, USER_IDS), reader.numpy(block, USER_HASHES))
        own_items = items.add(reader.arrow(block, ITEM_IDS), reader.numpy(block, ITEM_HASHES))
        counts.add(own_users, reader.numpy(block, USER_COUNTS), len(users))
        yield {USERS: own_users, ITEMS: own_items}


def _bounds(num_events: NDArray[np.int64], partition_rows: int) -> list[int]:
    """First user of each partition, such that all have about as many events; a very active user may have one alone."""
    ends = np.cumsum(num_events)
    num_partitions = -(-int(ends[-1]) // partition_rows)
    targets = np.arange(1, num_partitions) * (int(ends[-1]) / num_partitions)
    inner = np.searchsorted(ends, targets)
    return np.unique(np.concatenate([[0], inner, [len(num_events)]])).tolist()


def _by_partition(users: _Ids, numbering: Numbering) -> Iterable[Group]:
    ids = users.joined()
    for start, end in zip(numbering.first_users[:-1], numbering.first_users[1:], strict=True):
        yield {USER_IDS: ids.slice(start, end - start)}
