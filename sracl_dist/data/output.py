"""Last step over the log: the tables `users` and `sequences`, a shard of each per partition.

users/<first>-<end>.parquet, sequences/<first>-<end>.parquet
work/counted/<partition>.arrow    one group: training interactions of each item, earliest and latest time, and what
                                  is remembered for additions; written before the tables
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import NUM_TRAIN, NUM_VALIDATION, PAD, USER, USER_ID
from sracl_dist.data.encode import ITEMS, TIMES, USER_IDS, USERS
from sracl_dist.data.filtering import DENSE, KEPT, KEPT_ITEMS, Kept, kept_rows
from sracl_dist.data.groups import open_groups, write_groups
from sracl_dist.data.numbering import USERS_FILE, Numbering
from sracl_dist.data.ordering import LENGTHS, ORDERED, SOME_TIMES, counts_of, partition_name
from sracl_dist.data.recent import ALWAYS, NAMES, Recent, recent_in, time_of_recent
from sracl_dist.data.sequences import NUMBERS, SEQUENCES, USERS_PER_GROUP, Sequences
from sracl_dist.data.state import Dropped, dropped_name, save_dropped
from sracl_dist.ids import USERS as USERS_TABLE
from sracl_dist.run_folder import StageFolder
from sracl_dist.shards import Shard

COUNTED = "work/counted/"
COUNTS, TIME_RANGE = "counts", "time_range"
TOTALS, LAST_TIMES, LAST_ITEMS = "totals", "last_times", "last_items"


def shard_of(kept: Kept, partition: int, kind: str) -> Shard:
    """The shard of a table that a partition becomes; it may be empty."""
    return Shard(kind, kept.first_users[partition], kept.first_users[partition + 1])


def is_done(folder: StageFolder, kept: Kept, partition: int) -> bool:
    """Whether the partition's tables were written before, or there is nothing to write."""
    shard = shard_of(kept, partition, SEQUENCES)
    return folder.exists(shard.name if shard.num_rows else dropped_name(0, partition))


def make_writer(folder: StageFolder, numbering: Numbering, kept: Kept, since: int | None) -> Callable[[int], None]:
    """What a task does: write the tables of a partition's users.

    `since` is the time after which events are remembered as recent; None where there are no times.
    """
    has_times = since is not None
    with open_groups(folder, KEPT_ITEMS, [DENSE]) as reader:
        dense = reader.numpy(0, DENSE)
    num_items = len(kept.items)
    names = [ITEMS, LENGTHS, *([TIMES] if has_times else [])]

    def write(partition: int) -> None:
        with open_groups(folder, partition_name(KEPT, partition), [USERS, NUM_TRAIN, NUM_VALIDATION]) as reader:
            stay, num_train, num_validation = (reader.numpy(0, name) for name in (USERS, NUM_TRAIN, NUM_VALIDATION))
        with open_groups(folder, USERS_FILE, [USER_IDS]) as reader:
            user_ids = reader.arrow(partition, USER_IDS).filter(pa.array(stay))
        with open_groups(folder, partition_name(ORDERED, partition), names) as reader:
            columns = {name: reader.numpy(0, name) for name in names}
        keep = kept_rows(columns[LENGTHS], columns[ITEMS], stay, dense)
        shard = shard_of(kept, partition, SEQUENCES)
        lengths = kept.lengths[shard.start : shard.stop]
        sequences = Sequences(
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            items=dense[columns[ITEMS][keep]],
            num_train=num_train,
            num_validation=num_validation,
            num_items=num_items,
        )
        times = columns[TIMES][keep] if has_times else None
        time_range = np.array([times.min(), times.max()] if times is not None and len(times) else [], np.int64)
        counts = {COUNTS: sequences.training_counts()[1:], TIME_RANGE: time_range, TOTALS: columns[LENGTHS]}
        counts[LAST_ITEMS] = _last_items(sequences)
        # Of all events, for an item that was removed may come back.
        counts[LAST_TIMES] = columns[TIMES][np.cumsum(columns[LENGTHS]) - 1] if has_times else np.zeros(0, np.int64)
        if since is not None:
            counts |= _recent(columns, numbering.first_users[partition], since).group()
        write_groups(folder, partition_name(COUNTED, partition), [counts])
        save_dropped(folder, 0, partition, _dropped(columns, numbering.first_users[partition], ~keep))
        if not shard.num_rows:
            return
        users = users_table(shard.start, user_ids)
        folder.write_table(shard_of(kept, partition, USERS_TABLE).name, users)
        table = sequences.to_table(times, np.arange(shard.start, shard.stop))
        folder.write_table(shard.name, table, NUMBERS, USERS_PER_GROUP)

    return write


def _dropped(columns: dict[str, NDArray], first_user: int, gone: NDArray[np.bool_]) -> Dropped:
    """The removed events of a partition."""
    lengths = columns[LENGTHS]
    rows = np.flatnonzero(gone)
    users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)[rows]
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return Dropped(
        users=users + np.int32(first_user),
        items=columns[ITEMS][rows],
        times=columns[TIMES][rows] if TIMES in columns else None,
        rank=(rows - starts[users]).astype(np.int32),
    )


def _recent(columns: dict[str, NDArray], first_user: int, since: int) -> Recent:
    """The events of a partition after a time."""
    users = np.repeat(np.arange(first_user, first_user + len(columns[LENGTHS]), dtype=np.int32), columns[LENGTHS])
    return Recent(users=users, items=columns[ITEMS], times=columns[TIMES], since=ALWAYS).after(since)


def _last_items(sequences: Sequences) -> NDArray[np.int32]:
    """[2 U] the last item of each user and the one before, PAD where there is none."""
    last = np.full((sequences.num_users, 2), PAD, np.int32)
    ends, lengths = sequences.offsets[1:], np.diff(sequences.offsets)
    last[:, 0] = sequences.items[ends - 1]
    two = lengths > 1
    last[two, 1] = sequences.items[ends[two] - 2]
    return last.ravel()


def remembered(folder: StageFolder, num_partitions: int) -> dict[str, NDArray]:
    """TOTALS, LAST_TIMES and LAST_ITEMS of all partitions."""
    parts: dict[str, list[NDArray]] = {name: [] for name in (TOTALS, LAST_TIMES, LAST_ITEMS)}
    for partition in range(num_partitions):
        with open_groups(folder, partition_name(COUNTED, partition), list(parts)) as reader:
            for name, values in parts.items():
                values.append(reader.numpy(0, name))
    return {name: np.concatenate(values) for name, values in parts.items()}


def recent_since(folder: StageFolder, num_partitions: int) -> int:
    """The time after which the latest events of a log with times are, when all partitions are ordered.

    Users of a partition came at about the same time, so that no partition's own times tell it.
    """
    some_times, nums_events = [], []
    for partition in range(num_partitions):
        with open_groups(folder, partition_name(ORDERED, partition), [SOME_TIMES]) as reader:
            some_times.append(reader.numpy(0, SOME_TIMES))
        nums_events.append(counts_of(folder, partition).num_kept)
    return time_of_recent(some_times, nums_events)


def remembered_recent(folder: StageFolder, num_partitions: int) -> Recent:
    """The latest events of a log with times, when all partitions are written."""
    parts = []
    for partition in range(num_partitions):
        with open_groups(folder, partition_name(COUNTED, partition), NAMES) as reader:
            parts.append(recent_in(reader))
    return Recent.joined(parts)


def counted(folder: StageFolder, kept: Kept) -> tuple[NDArray[np.int64], list[int] | None]:
    """[V] training interactions of each item, and the earliest and the latest time, when all partitions are written."""
    counts, times = np.zeros(len(kept.items), np.int64), []
    for partition in range(len(kept.first_users) - 1):
        if shard_of(kept, partition, SEQUENCES).num_rows:
            with open_groups(folder, partition_name(COUNTED, partition), [COUNTS, TIME_RANGE]) as reader:
                counts += reader.numpy(0, COUNTS)
                times += reader.numpy(0, TIME_RANGE).tolist()
    return counts, [min(times), max(times)] if times else None


def users_table(first: int, user_ids: pa.Array) -> pa.Table:
    """Rows of the table `users` from the dense id `first` on.

    It holds nothing that new events of a user change, so that a shard is written once.
    """
    users = np.arange(first, first + len(user_ids), dtype=np.int64)
    return pa.table({USER: pa.array(users), USER_ID: user_ids.cast(pa.string())})
