"""Last step over the log: the tables `users` and `sequences`, a shard of each per partition.

work/counted/<partition>.parquet   of the partition's items that stay: dense id, interactions for training; and the
                                   range of times in its metadata; written before the tables
users/<first>-<end>.parquet, sequences/<first>-<end>.parquet
"""

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, NUM_TRAIN, NUM_TRAIN_INTERACTIONS, NUM_VALIDATION, TIME, USER, USER_ID
from sracl_dist.data.filter import KEPT_ITEMS, KEPT_USERS, STAYS, Kept, kept_rows
from sracl_dist.data.order import EVENTS, LENGTH, USER_LISTS, partition_name
from sracl_dist.ids import USERS
from sracl_dist.run_folder import StageFolder
from sracl_dist.sequences import NUMBERS, SEQUENCES, Sequences
from sracl_dist.shards import Shard

COUNTED = "work/counted/"
TIME_RANGE = b"time_range"


def shard_of(kept: Kept, partition: int, kind: str) -> Shard:
    """The shard of a table that a partition becomes; it may be empty."""
    return Shard(kind, kept.first_users[partition], kept.first_users[partition + 1])


def names_of_written(kept: Kept, partition: int) -> set[str]:
    """Files of a partition whose tables are written."""
    return {shard_of(kept, partition, kind).name for kind in (USERS, SEQUENCES)} | {partition_name(COUNTED, partition)}


def make_writer(folder: StageFolder, kept: Kept, *, has_times: bool) -> Callable[[int], None]:
    """What a task does: write the tables of a partition's users."""

    def write(partition: int) -> None:
        users = folder.read_table(partition_name(USER_LISTS, partition))
        own = folder.read_table(partition_name(KEPT_USERS, partition))
        stays = own[STAYS].to_numpy()
        dense = folder.read_table(partition_name(KEPT_ITEMS, partition))[ITEM].to_numpy()
        events = folder.read_table(partition_name(EVENTS, partition), [ITEM, TIME] if has_times else [ITEM])
        places = events[ITEM].to_numpy()
        rows = kept_rows(users[LENGTH].to_numpy(), places, stays, dense)
        shard = shard_of(kept, partition, SEQUENCES)
        sequences = Sequences(
            offsets=np.concatenate([[0], np.cumsum(kept.lengths[shard.start : shard.stop], dtype=np.int64)]),
            items=dense[places[rows]],
            num_train=own[NUM_TRAIN].to_numpy()[stays],
            num_validation=own[NUM_VALIDATION].to_numpy()[stays],
            num_items=len(kept.popularity),
        )
        times = events[TIME].to_numpy()[rows] if has_times else None
        _write_counts(folder, partition, sequences, times, places[rows], dense)
        numbers = np.arange(shard.start, shard.stop)
        user_ids = users[USER_ID].filter(pa.array(stays)).cast(pa.string())
        folder.write_table(
            shard_of(kept, partition, USERS).name, pa.table({USER: pa.array(numbers, pa.int64()), USER_ID: user_ids})
        )
        folder.write_table(shard.name, sequences.to_table(times, numbers), NUMBERS)

    return write


def _write_counts(
    folder: StageFolder,
    partition: int,
    sequences: Sequences,
    times: NDArray[np.int64] | None,
    places: NDArray[np.int32],
    dense: NDArray[np.int32],
) -> None:
    """Count the training interactions of the partition's own items, which are fewer than all."""
    lengths = np.diff(sequences.offsets)
    place_within = np.arange(len(places)) - np.repeat(sequences.offsets[:-1], lengths)
    counts = np.bincount(places[place_within < np.repeat(sequences.num_train, lengths)], minlength=len(dense))
    table = pa.table({ITEM: dense, NUM_TRAIN_INTERACTIONS: counts.astype(np.int32)})
    time_range = [] if times is None else [int(times.min()), int(times.max())]
    metadata = {TIME_RANGE: json.dumps(time_range).encode()}
    folder.write_table(partition_name(COUNTED, partition), table.replace_schema_metadata(metadata))


def counted(folder: StageFolder, kept: Kept) -> tuple[NDArray[np.int64], list[int] | None]:
    """[V] training interactions of each item, and the earliest and the latest time, when all partitions are written."""
    counts, times = np.zeros(len(kept.popularity) + 1, np.int64), []
    for partition in range(len(kept.first_users) - 1):
        if shard_of(kept, partition, USERS).num_rows:
            table = folder.read_table(partition_name(COUNTED, partition))
            # An item that is removed has no interactions, and all others stand in the table once.
            counts[table[ITEM].to_numpy()] += table[NUM_TRAIN_INTERACTIONS].to_numpy()
            times += json.loads(table.schema.metadata[TIME_RANGE])
    return counts[1:], [min(times), max(times)] if times else None
