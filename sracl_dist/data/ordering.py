"""Fourth step over the log: the rows of a partition in the order of its users and their times, each event once.

work/ordered/<partition>.arrow    one group: items, times; the number of rows of each of the partition's users; and
                                  some of the times, evenly taken
work/repeated/<partition>.arrow   one group: rows that are repeated, and their values
work/ordered/<partition>.json     what became of the rows; written last
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import VALUE
from sracl_dist.data.encode import ITEM_IDS, ITEMS, ROWS, TIMES, USERS, split_name
from sracl_dist.data.event_order import beyond_limit, in_time_order, repeated
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.groups import open_groups, write_groups
from sracl_dist.data.numbering import ITEMS_FILE, Numbering
from sracl_dist.data.rejects import excerpts
from sracl_dist.data.shuffle import NUM_BLOCKS, SHUFFLED
from sracl_dist.run_folder import StageFolder

ORDERED, REPEATED = "work/ordered/", "work/repeated/"
LENGTHS = "lengths"
SOME_TIMES = "some_times"
NUM_SOME_TIMES = 1000
"""At least, of a partition with so many events."""


def partition_name(folder: str, partition: int, ending: str = "arrow") -> str:
    """Name of a partition's file below a folder of the stage."""
    return f"{folder}{partition:06d}.{ending}"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the rows of a partition."""

    num_kept: int
    num_repeated: int
    num_over_limit: int


def counts_of(folder: StageFolder, partition: int) -> Counts:
    """What became of the rows of an ordered partition."""
    return Counts(**folder.read_json(partition_name(ORDERED, partition, "json")))


def is_done(folder: StageFolder, partition: int) -> bool:
    """Whether the partition was ordered before."""
    return folder.exists(partition_name(ORDERED, partition, "json"))


def make_orderer(
    folder: StageFolder,
    splits: Sequence[FileSplit],
    numbering: Numbering,
    max_user_rows: int | None,
    has_times: bool,
) -> Callable[[int], None]:
    """What a task does: order a partition, leave out its repeated rows, and commit what stays."""
    names = [USERS, ITEMS, ROWS, *([TIMES] if has_times else [])]

    def order(partition: int) -> None:
        columns = _gathered(folder, splits, numbering, partition, names)
        first, end = numbering.first_users[partition : partition + 2]
        columns[USERS] -= first
        num_over = 0
        if max_user_rows is not None:
            over = beyond_limit(columns[USERS], columns[ITEMS], columns.get(TIMES), max_user_rows)
            num_over = int(over.sum())
            if num_over:
                columns = {name: values[~over] for name, values in columns.items()}
        chosen = in_time_order(columns[USERS], columns.get(TIMES))
        columns = {name: values[chosen] for name, values in columns.items()}
        num_repeated = 0
        if has_times:
            again = repeated(columns[USERS], columns[TIMES], columns[ITEMS])
            num_repeated = int(again.sum())
            if num_repeated:
                _write_repeated(folder, partition, {name: values[again] for name, values in columns.items()})
                columns = {name: values[~again] for name, values in columns.items()}
        group = {name: columns[name] for name in (ITEMS, TIMES) if name in columns}
        group[LENGTHS] = np.bincount(columns[USERS], minlength=end - first).astype(np.int32)
        if has_times:
            group[SOME_TIMES] = columns[TIMES][:: max(1, len(columns[TIMES]) // NUM_SOME_TIMES)]
        write_groups(folder, partition_name(ORDERED, partition), [group])
        counts = Counts(num_kept=len(columns[USERS]), num_repeated=num_repeated, num_over_limit=num_over)
        folder.write_json(partition_name(ORDERED, partition, "json"), asdict(counts))

    return order


def _gathered(
    folder: StageFolder,
    splits: Sequence[FileSplit],
    numbering: Numbering,
    partition: int,
    names: list[str],
) -> dict[str, NDArray]:
    """The partition's rows in the order of the files."""
    parts: dict[str, list[NDArray]] = {name: [] for name in names}
    for split in splits:
        num_blocks = folder.read_json(split_name(SHUFFLED, split, "json"))[NUM_BLOCKS]
        with open_groups(folder, split_name(SHUFFLED, split), names) as reader:
            for block in range(num_blocks):
                for name in names:
                    parts[name].append(reader.numpy(block * numbering.num_partitions + partition, name))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _write_repeated(folder: StageFolder, partition: int, columns: dict[str, NDArray]) -> None:
    with open_groups(folder, ITEMS_FILE, [ITEM_IDS]) as reader:
        item_ids = reader.arrow(0, ITEM_IDS)
    order = np.argsort(columns[ROWS])
    values = excerpts(item_ids.take(pa.array(columns[ITEMS][order])))
    group = {ROWS: columns[ROWS][order], VALUE: values}
    write_groups(folder, partition_name(REPEATED, partition), [group])
