"""The events that come into the tables when files are added to a log, written with their places in the histories."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, PAD, PLACE, TIME, USER
from sracl_dist.data.event_order import count_up, starts_of
from sracl_dist.data.sequences import ADDED
from sracl_dist.data.state import Dropped, Memory
from sracl_dist.run_folder import StageFolder


@dataclass(frozen=True, kw_only=True)
class _Added:
    """Events that come in, by user and place, and the users who get them."""

    rows: NDArray[np.int64]
    """[E] among the candidates."""
    places: NDArray[np.int64]
    """[E] in the new history."""
    owners: NDArray[np.int64]
    """[E] index into `users`."""
    users: NDArray[np.int32]
    """Numbers."""


def _added(candidates: Dropped, stays: NDArray[np.bool_], num_users: int) -> _Added:
    changes = np.zeros(num_users, dtype=np.bool_)
    changes[candidates.users[stays]] = True
    rows = np.flatnonzero(changes[candidates.users])
    key = (candidates.users[rows].astype(np.uint64) << np.uint64(32)) | candidates.rank[rows].astype(np.uint64)
    rows = rows[np.argsort(key)]
    users, own_stays = candidates.users[rows], stays[rows]
    # Whatever does not stay is among the candidates, so that it is known how many events before each one do.
    gone = (~own_stays).astype(np.int64)
    gone_before = np.cumsum(gone) - gone
    starts = starts_of(users)
    lengths = np.diff(starts, append=len(users))
    places = candidates.rank[rows] - (gone_before - np.repeat(gone_before[starts], lengths))
    owners = np.repeat(np.arange(len(starts)), lengths)
    return _Added(rows=rows[own_stays], places=places[own_stays], owners=owners[own_stays], users=users[starts])


def write_added(
    folder: StageFolder, generation: int, memory: Memory, candidates: Dropped, stays: NDArray[np.bool_]
) -> tuple[Memory, int]:
    """Write the events that come in; returns the counts with them, and how many users have some.

    The arrays by number of `memory` are changed.
    """
    added = _added(candidates, stays, len(memory.user_dense))
    memory = _with_dense(memory, added.users, candidates.items[added.rows])
    users = memory.user_dense[added.users]
    old_lengths = memory.lengths[users].astype(np.int64)
    items = memory.item_dense[candidates.items[added.rows]]
    lengths, last_items = memory.lengths, memory.last_items.reshape(-1, 2)
    lengths[users] = old_lengths + np.bincount(added.owners, minlength=len(users))
    changes, last_items[users] = _moved(added, items, old_lengths, lengths[users], last_items[users], memory)
    count_up(memory.popularity, items - 1, 1)
    columns = {
        USER: pa.array(users[added.owners], pa.int64()),
        PLACE: pa.array(added.places, pa.int32()),
        ITEM: pa.array(items, pa.int32()),
    }
    time_range = memory.time_range
    if candidates.times is not None:
        times = candidates.times[added.rows]
        columns[TIME] = pa.array(times, pa.int64())
        both = np.concatenate([time_range, times])
        time_range = np.array([both.min(), both.max()] if len(both) else [], np.int64)
    table = pa.table(columns)
    # By dense id and place, as those who read histories want them.
    order = np.argsort(users[added.owners], kind="stable")
    folder.write_table(
        f"{ADDED}/{generation:06d}.parquet", table.take(pa.array(order)), (ITEM, *columns.keys() & {TIME})
    )
    memory = replace(
        memory,
        num_train=memory.num_train + changes,
        time_range=time_range,
    )
    return memory, len(users)


def _with_dense(memory: Memory, user_numbers: NDArray[np.int32], item_numbers: NDArray[np.int32]) -> Memory:
    """Dense ids behind the others, by number, for users and items that come in, and room for them elsewhere.

    User numbers ascend, each there once; items may be repeated.
    """
    user_dense, item_dense = memory.user_dense, memory.item_dense
    users = user_numbers[user_dense[user_numbers] < 0]
    comes = np.zeros(len(item_dense), dtype=np.bool_)
    comes[item_numbers] = True
    items = np.flatnonzero(comes & (item_dense == PAD))
    user_dense[users] = len(memory.lengths) + np.arange(len(users), dtype=np.int32)
    item_dense[items] = len(memory.popularity) + 1 + np.arange(len(items), dtype=np.int32)
    return replace(
        memory,
        lengths=np.append(memory.lengths, np.zeros(len(users), np.int32)),
        last_items=np.append(memory.last_items, np.full(2 * len(users), PAD, np.int32)),
        popularity=np.append(memory.popularity, np.zeros(len(items), np.int32)),
        num_train=np.append(memory.num_train, np.zeros(len(items), np.int64)),
    )


def _moved(
    added: _Added,
    items: NDArray[np.int32],
    old_lengths: NDArray[np.int64],
    lengths: NDArray[np.int32],
    last_items: NDArray[np.int32],
    memory: Memory,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """[V] by how much the training events of each item change, and the last two items of each changed user.

    Of the old events only the last two can come into training or leave it: the others have two old ones behind them.
    """
    num, num_items = len(lengths), len(memory.popularity)
    held_out, held_out_before = 2 * (lengths >= 3), 2 * (old_lengths >= 3)
    num_train = lengths - held_out
    trains = items[added.places < num_train[added.owners]]
    changes = np.bincount(trains, minlength=num_items + 1).astype(np.int64)
    # How many old events come after each new one tells where the last two old ones are now.
    counts = np.bincount(added.owners, minlength=num)
    from_end = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(len(added.owners))
    old_behind = lengths[added.owners] - 1 - added.places - from_end
    behind = [np.bincount(added.owners[old_behind == number], minlength=num) for number in (0, 1)]
    old_places = (lengths - 1 - behind[0], lengths - 2 - behind[0] - behind[1])
    for number, places in enumerate(old_places):
        there = old_lengths > number
        change = (places < num_train).astype(np.int64) - (held_out_before == 0)
        np.add.at(changes, last_items[there, number], change[there])
    new_last = np.full((num, 2), PAD, np.int32)
    for number in (0, 1):
        at_end = added.places == lengths[added.owners] - 1 - number
        new_last[added.owners[at_end], number] = items[at_end]
        for old, places in enumerate(old_places):
            there = (old_lengths > old) & (places == lengths - 1 - number)
            new_last[there, number] = last_items[there, old]
    return changes[1:], new_last
