"""Third step over the log: the rows of each block dealt to the partitions of their users.

work/shuffled/<split>.arrow    block after block, a group per partition: users, items, times, rows
work/shuffled/<split>.json     number of blocks and of rows left out; written last
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from sracl_dist.data.encode import ENCODED, ITEMS, ROWS, TIMES, USERS, split_name
from sracl_dist.data.event_order import beyond_limit
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.groups import Group, GroupReader, open_groups, write_groups
from sracl_dist.data.numbering import BUSY_USERS, ITEMS_FILE, NUMBERS, Numbering
from sracl_dist.run_folder import StageFolder

SHUFFLED = "work/shuffled/"
NUM_BLOCKS, NUM_OVER_LIMIT = "num_blocks", "num_over_limit"


def is_done(folder: StageFolder, split: FileSplit) -> bool:
    """Whether the split was shuffled before."""
    return folder.exists(split_name(SHUFFLED, split, "json"))


def num_over_limit(folder: StageFolder, split: FileSplit) -> int:
    """Rows of a shuffled split that were left out."""
    return int(folder.read_json(split_name(SHUFFLED, split, "json"))[NUM_OVER_LIMIT])


def make_shuffler(
    folder: StageFolder, numbering: Numbering, max_user_rows: int | None, has_times: bool
) -> Callable[[FileSplit], None]:
    """What a task does: deal the rows of a split to the partitions and commit them."""
    busy = np.zeros(0, np.int32)
    if max_user_rows is not None:
        with open_groups(folder, ITEMS_FILE, [BUSY_USERS]) as reader:
            busy = reader.numpy(0, BUSY_USERS)
    names = [USERS, ITEMS, ROWS, *([TIMES] if has_times else [])]

    def shuffle(split: FileSplit) -> None:
        over: list[int] = []
        with (
            open_groups(folder, split_name(ENCODED, split), names) as rows,
            open_groups(folder, split_name(NUMBERS, split), [USERS, ITEMS]) as numbers,
        ):
            num_blocks = len(rows)
            write_groups(folder, split_name(SHUFFLED, split), _dealt(rows, numbers, numbering, names, over))
        folder.write_json(split_name(SHUFFLED, split, "json"), {NUM_BLOCKS: num_blocks, NUM_OVER_LIMIT: sum(over)})

    def _dealt(
        rows: GroupReader, numbers: GroupReader, numbering: Numbering, names: list[str], over: list[int]
    ) -> Iterator[Group]:
        for block in range(len(rows)):
            columns = {name: rows.numpy(block, name) for name in names}
            user_numbers = numbers.numpy(block, USERS)
            partitions = _partition_of(user_numbers, numbering)[columns[USERS]]
            columns[USERS] = user_numbers[columns[USERS]]
            columns[ITEMS] = numbers.numpy(block, ITEMS)[columns[ITEMS]]
            keep = _within_limit(columns, busy, max_user_rows)
            over.append(int((~keep).sum()))
            if over[-1]:
                columns, partitions = {name: values[keep] for name, values in columns.items()}, partitions[keep]
            # Sixteen bits are sorted by counting, which is many times faster than by comparing.
            order = np.argsort(partitions, kind="stable")
            columns = {name: values[order] for name, values in columns.items()}
            ends = np.cumsum(np.bincount(partitions, minlength=numbering.num_partitions))
            for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True):
                yield {name: values[start:end] for name, values in columns.items()}

    return shuffle


def _partition_of(users: NDArray[np.int32], numbering: Numbering) -> NDArray[np.uint16]:
    return np.searchsorted(numbering.first_users[1:-1], users, side="right").astype(np.uint16)


def _within_limit(columns: dict[str, NDArray], busy: NDArray[np.int32], max_user_rows: int | None) -> NDArray[np.bool_]:
    """Rows that may be among their user's latest; the others need not travel, so that no partition swells."""
    users = columns[USERS]
    keep = np.ones(len(users), dtype=np.bool_)
    if max_user_rows is None or not len(busy):
        return keep
    rows = np.flatnonzero(np.isin(users, busy))
    times = columns[TIMES][rows] if TIMES in columns else None
    keep[rows[beyond_limit(users[rows], columns[ITEMS][rows], times, max_user_rows)]] = False
    return keep
