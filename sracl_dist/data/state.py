"""What prepare remembers of a log, so that new files are added to its tables without reading the old ones again.

    state/log.json                    the files and settings that the tables were made from; written last
    state/growing.json                there while files are added
    state/ids/                        ids of users and items, and how they are found; see known_ids
    state/<generation>.arrow          one group: the arrays of `Memory`
    state/<generation>.recent.arrow   the latest events; see recent
    state/dropped/<generation>/*      groups of events that the k-core removed; an item or user may come back
    state/lasting.*                   there while the log is read anew as a whole; see lasting_ids

Generation 0 is a whole log, and each addition makes the next. Users and items have a number among all that ever
appeared, and a dense id if they stay.
"""

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import PAD
from sracl_dist.data.encode import ITEMS, TIMES, USERS
from sracl_dist.data.groups import Group, open_groups, write_groups
from sracl_dist.data.interactions import Tally
from sracl_dist.data.known_ids import IDS
from sracl_dist.data.strings import HashKey
from sracl_dist.run_folder import StageFolder

STATE = "state/"
LOG = "state/log.json"
GROWING = "state/growing.json"
"""There while files are added, so that tables which an interrupted addition wrote are not taken for the old ones."""
LASTING_IDS, LASTING = "state/lasting.arrow", "state/lasting.json"
RANK = "rank"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Numbers and counts."""

    user_dense: NDArray[np.int32]
    """Dense id of each user by number, -1 for a removed one."""
    item_dense: NDArray[np.int32]
    """Dense id of each item by number, PAD for a removed one."""
    lengths: NDArray[np.int32]
    """[U] events of each user."""
    popularity: NDArray[np.int32]
    """[V] events of each item."""
    num_train: NDArray[np.int64]
    """[V] training events of each item."""
    totals: NDArray[np.int32]
    """Different events of each user by number, removed ones included."""
    last_times: NDArray[np.int64]
    """Time of the latest of them; empty where there are no times."""
    last_items: NDArray[np.int32]
    """[2 U] for each user the last item that stays and the one before, PAD where there is none."""
    time_range: NDArray[np.int64]
    """Earliest and latest time of events that stay; empty where there are no times."""

    def user_numbers(self, first: int = 0) -> NDArray[np.int64]:
        """Numbers of the users with dense ids from `first` on, in the order of these."""
        return _in_order(self.user_dense, first)

    def item_numbers(self) -> NDArray[np.int64]:
        """[V] numbers of the items that stay, in the order of their dense ids."""
        return _in_order(self.item_dense, PAD + 1)


def _in_order(dense: NDArray[np.int32], first: int) -> NDArray[np.int64]:
    numbers = np.flatnonzero(dense >= first)
    order = np.empty(len(numbers), np.int64)
    order[dense[numbers] - first] = numbers
    return order


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Events that the k-core removed, each one once."""

    users: NDArray[np.int32]
    """Numbers."""
    items: NDArray[np.int32]
    """Numbers."""
    times: NDArray[np.int64] | None
    rank: NDArray[np.int32]
    """Place of each event among all of its user's, kept or removed."""

    def select(self, chosen: NDArray) -> "Dropped":
        """Only these."""
        times = None if self.times is None else self.times[chosen]
        return Dropped(users=self.users[chosen], items=self.items[chosen], times=times, rank=self.rank[chosen])

    def group(self) -> Group:
        """The arrays to be written."""
        times = {} if self.times is None else {TIMES: self.times}
        return {USERS: self.users, ITEMS: self.items, RANK: self.rank, **times}


@dataclass(frozen=True, kw_only=True)
class State:
    """What log.json holds."""

    generation: int
    made_from: dict[str, Any]
    """Settings and version."""
    files: list[list[str]]
    """Path, name in the table of rejects, and size and time of each file of the log, in order."""
    text_files: dict[str, str]
    dates: bool | None
    """Whether times are dates; see TimeParser."""
    hash_key: list[int]
    """With which the ids are found."""
    tally: dict[str, Any]
    texts: dict[str, Any]
    """What the manifest says about item texts."""
    rounds: list[dict[str, int]]
    """Of the k-core."""
    num_users: int
    """Users and items that stay."""
    num_items: int
    num_log_rejects: int
    """Rows of the table of rejects that are of the log; those of item texts come behind."""

    def counts(self) -> Tally:
        """What became of the rows of the log."""
        return Tally(**self.tally | {"rejected": Counter(self.tally["rejected"])})

    def key(self) -> HashKey:
        """With which the ids are found."""
        return HashKey(*self.hash_key)


def load_state(folder: StageFolder) -> State | None:
    """What is remembered, if anything.

    Raises:
        StorageError: it is damaged.
    """
    if not folder.exists(LOG):
        return None
    try:
        return State(**folder.read_json(LOG))
    except TypeError:
        raise folder.damaged(LOG) from None


def save_state(folder: StageFolder, state: State) -> None:
    """Make this the state; files of older generations that are no longer needed go."""
    folder.write_json(LOG, vars(state))
    current = f"{state.generation:06d}"
    needed = (f"{STATE}{current}.", f"{STATE}dropped/{current}/", IDS, LOG)
    names = [name for name in folder.files(STATE) if not name.startswith(needed)]
    folder.delete(names)
    for generation in {name.split("/")[2] for name in names if name.startswith(f"{STATE}dropped/")}:
        folder.delete_folder(f"{STATE}dropped/{generation}")


def save_memory(folder: StageFolder, generation: int, memory: Memory) -> None:
    """Write a generation's arrays."""
    write_groups(folder, f"{STATE}{generation:06d}.arrow", [vars(memory)])


def text_rejects_name(generation: int) -> str:
    """Name of the table of rejected rows of item texts."""
    return f"{STATE}{generation:06d}.texts.parquet"


def load_memory(folder: StageFolder, generation: int) -> Memory:
    """The arrays of a generation."""
    names = [each.name for each in fields(Memory)]
    with open_groups(folder, f"{STATE}{generation:06d}.arrow", names) as reader:
        return Memory(**{name: reader.numpy(0, name) for name in names})


def dropped_name(generation: int, part: int) -> str:
    """Name of a file of removed events."""
    return f"{STATE}dropped/{generation:06d}/{part:06d}.arrow"


def save_dropped(folder: StageFolder, generation: int, part: int, dropped: Dropped) -> None:
    """Write removed events."""
    write_groups(folder, dropped_name(generation, part), [dropped.group()])


def load_dropped(folder: StageFolder, generation: int, *, has_times: bool) -> Dropped:
    """All removed events, part after part."""
    names = [USERS, ITEMS, RANK, *([TIMES] if has_times else [])]
    parts: dict[str, list[NDArray]] = {name: [] for name in names}
    for file in folder.files(f"{STATE}dropped/{generation:06d}"):
        with open_groups(folder, file, names) as reader:
            for name in names:
                parts[name].append(reader.numpy(0, name))
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    return Dropped(users=columns[USERS], items=columns[ITEMS], times=columns.get(TIMES), rank=columns[RANK])
