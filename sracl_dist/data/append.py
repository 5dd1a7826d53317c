"""New files of a log added to the tables that were made from the old ones, at the cost of what changes.

The k-core of a log stays in the core of a larger one, so users and items that stay keep their dense ids and only the
events that were removed before and the new ones are peeled again. Histories that change are written whole, to
changed/<generation>.parquet, and stand in the place of the earlier ones.

Numbers count all users and items that ever appeared; dense ids only those that stay. E events, U users, V items.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.artifacts import StageFolder
from sracl_dist.columns import PAD
from sracl_dist.data.encode import (
    ENCODED,
    FIRST_ROW,
    ITEM_HASHES,
    ITEM_IDS,
    ITEMS,
    ROWS,
    TIMES,
    USER_HASHES,
    USER_IDS,
    USERS,
    split_name,
)
from sracl_dist.data.event_order import in_time_order, repeated
from sracl_dist.data.file_splits import FileSplit
from sracl_dist.data.groups import GroupReader, open_groups
from sracl_dist.data.sequences import CHANGED, NUMBERS, SequenceRows, Sequences, ragged_places, read_sequence_rows
from sracl_dist.data.splits import leave_last_out
from sracl_dist.data.state import Dropped, Memory
from sracl_dist.data.strings import HashKey, Register, hash_strings

OLD_KEPT, OLD_DROPPED, NEW = 0, 1, 2
"""Where an event comes from."""


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """The usable events of the new files, in the order of arrival, and the ids that are new."""

    users: NDArray[np.int32]
    """[E] numbers."""
    items: NDArray[np.int32]
    """[E] numbers."""
    times: NDArray[np.int64] | None
    rows: NDArray[np.int64]
    splits: NDArray[np.int32]
    """[E] index of each event's split."""
    user_ids: pa.LargeStringArray
    """Of users that never appeared before, by number."""
    item_ids: pa.LargeStringArray


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What new files make of the tables."""

    memory: Memory
    dropped: Dropped
    rounds: list[dict[str, int]]
    """Users, items and events with the new ones, before any removal and after each round of removal."""
    num_repeated: int
    repeats: dict[str, NDArray]
    """Splits, rows and items (numbers) of new events that are duplicates."""
    num_changed: int
    """Users whose histories changed."""
    num_changed_events: int
    """Events that these have now."""


def read_arrivals(
    folder: StageFolder,
    splits: list[FileSplit],
    known_ids: tuple[pa.Array, pa.Array],
    key: HashKey,
    *,
    has_times: bool,
) -> Arrivals:
    """Number the events of the new files, which are encoded: known ids have their numbers, new ones get the next.

    Args:
        folder: the stage prepare.
        splits: of the new files.
        known_ids: of users and of items, by number.
        key: with which the files were encoded.
        has_times: whether the log has times.
    """
    registers = (Register(), Register())
    first_ids: tuple[list[pa.Array], list[pa.Array]] = ([], [])
    parts: dict[str, list[NDArray]] = {name: [] for name in (USERS, ITEMS, TIMES, ROWS, "splits")}
    for split in splits:
        with open_groups(
            folder,
            split_name(ENCODED, split),
            [USERS, ITEMS, TIMES, ROWS, FIRST_ROW, USER_IDS, USER_HASHES, ITEM_IDS, ITEM_HASHES],
        ) as reader:
            for block in range(len(reader)):
                _add_block(reader, block, registers, first_ids, parts)
                parts["splits"].append(np.full(len(parts[ROWS][-1]), split.index, np.int32))
    columns = {name: np.concatenate([np.zeros(0, np.int64), *values]) for name, values in parts.items()}
    numbered, new_ids = [], []
    for register, own_ids, known, name in zip(registers, first_ids, known_ids, (USERS, ITEMS), strict=True):
        numbers, fresh = _numbers(register, len(known), hash_strings(known, key))
        joined = pa.concat_arrays([pa.array([], pa.large_string()), *own_ids])
        new_ids.append(joined.filter(pa.array(fresh)))
        numbered.append(numbers[columns[name].astype(np.int32)])
    return Arrivals(
        users=numbered[0],
        items=numbered[1],
        times=columns[TIMES] if has_times else None,
        rows=columns[ROWS],
        splits=columns["splits"].astype(np.int32),
        user_ids=new_ids[0],
        item_ids=new_ids[1],
    )


def _add_block(
    reader: GroupReader,
    block: int,
    registers: tuple[Register, Register],
    first_ids: tuple[list[pa.Array], list[pa.Array]],
    parts: dict[str, list[NDArray]],
) -> None:
    for place, (codes, ids, hashes) in enumerate(((USERS, USER_IDS, USER_HASHES), (ITEMS, ITEM_IDS, ITEM_HASHES))):
        own, fresh = registers[place].add(reader.numpy(block, hashes).reshape(-1, 2))
        first_ids[place].append(reader.arrow(block, ids).take(pa.array(fresh)))
        parts[codes].append(own[reader.numpy(block, codes)])
    parts[ROWS].append(reader.numpy(block, FIRST_ROW)[0] + reader.numpy(block, ROWS).astype(np.int64))
    if reader.has(TIMES):
        parts[TIMES].append(reader.numpy(block, TIMES))


def _numbers(
    register: Register, num_known: int, known_hashes: NDArray[np.uint64]
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The number of each of the register's ids, and which of them are new."""
    found = register.find(known_hashes)
    numbers = np.full(len(register), -1, np.int32)
    there = np.flatnonzero(found >= 0)
    numbers[found[there]] = there
    fresh = numbers < 0
    numbers[fresh] = num_known + np.arange(int(fresh.sum()), dtype=np.int32)
    return numbers, fresh


def add_arrivals(
    folder: StageFolder,
    generation: int,
    memory: Memory,
    dropped: Dropped,
    arrivals: Arrivals,
    least: tuple[int, int],
) -> Addition:
    """Write the histories that change, and return what else the tables become.

    Args:
        folder: the stage prepare.
        generation: the new generation.
        memory: of the old one.
        dropped: events that the k-core had removed.
        arrivals: new events.
        least: data.min_user_interactions and data.min_item_interactions.

    Raises:
        StorageError: a table of the old generation is damaged.
    """
    memory = _with_room(memory, arrivals)
    everything = _Events.of_arrivals(arrivals)
    # With duplicates among them the new events keep no less than without, so nobody is missed who comes back.
    maybe, rounds = _peel(memory, dropped, everything, least)
    affected = np.zeros(len(memory.user_dense), dtype=np.bool_)
    affected[arrivals.users] = True
    affected[dropped.users[maybe[: len(dropped.users)]]] = True
    old = _old_events(folder, memory, dropped, affected)
    again = _repeats(old, everything, len(affected))
    repeats: dict[str, NDArray] = {"splits": arrivals.splits[again], ROWS: arrivals.rows[again]}
    repeats[ITEMS] = arrivals.items[again]
    new, stays = everything, maybe
    if again.any():
        new = everything.select(~again)
        stays, rounds = _peel(memory, dropped, new, least)
    kept = np.concatenate([old.origin == OLD_KEPT, stays[len(dropped.users) :]])
    back = np.flatnonzero(old.origin == OLD_DROPPED)
    kept[back] = stays[old.source[back]]
    order = _merged_order(old, new, len(affected))
    events, kept = _Events.joined([old, new]).select(order), kept[order]
    users_kept = np.unique(events.users[kept & (events.origin != OLD_KEPT)])
    memory = _with_dense(memory, events, kept)
    memory, num_changed, num_events = _write_changed(folder, generation, memory, events, kept, users_kept)
    rest = dropped.select(~affected[dropped.users])
    return Addition(
        memory=memory,
        dropped=_joined_dropped(rest, events, kept),
        rounds=rounds,
        num_repeated=int(again.sum()),
        repeats=repeats,
        num_changed=num_changed,
        num_changed_events=num_events,
    )


@dataclass(frozen=True, kw_only=True)
class _Events:
    """Events of some users, by number."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    times: NDArray[np.int64] | None
    rank: NDArray[np.int32]
    """Place of an old event among all of its user's, and of a new one among the arrivals."""
    origin: NDArray[np.int8]
    source: NDArray[np.int32]
    """Place among the removed events or the arrivals."""

    @classmethod
    def of_arrivals(cls, arrivals: Arrivals) -> "_Events":
        """The new events."""
        places = np.arange(len(arrivals.users), dtype=np.int32)
        return cls(
            users=arrivals.users,
            items=arrivals.items,
            times=arrivals.times,
            rank=places,
            origin=np.full(len(places), NEW, np.int8),
            source=places,
        )

    @classmethod
    def joined(cls, parts: "list[_Events]") -> "_Events":
        """All of them."""
        names = ("users", "items", "rank", "origin", "source")
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        times = [part.times for part in parts if part.times is not None]
        return cls(times=np.concatenate(times) if times else None, **columns)

    def order(self) -> NDArray[np.int64]:
        """The order by user, time and arrival."""
        keys = (self.rank, self.origin == NEW)
        return np.lexsort((*keys, self.users) if self.times is None else (*keys, self.times, self.users))

    def select(self, chosen: NDArray) -> "_Events":
        """Only these, in this order."""
        return _Events(
            users=self.users[chosen],
            items=self.items[chosen],
            times=None if self.times is None else self.times[chosen],
            rank=self.rank[chosen],
            origin=self.origin[chosen],
            source=self.source[chosen],
        )


def _merged_order(old: _Events, new: _Events, num_users: int) -> NDArray[np.int64]:
    """The order by user, time and arrival of the old events with the new ones behind them.

    The place of an old event among its user's is known, so that only users with new events from before their last old
    one have to be sorted.
    """
    old_counts = np.bincount(old.users, minlength=num_users)
    totals = old_counts + np.bincount(new.users, minlength=num_users)
    starts = np.cumsum(totals) - totals
    order = np.empty(int(totals.sum()), np.int64)
    order[starts[old.users] + old.rank] = np.arange(len(old.users))
    by_time = in_time_order(new.users, new.times)
    users = new.users[by_time]
    first = np.flatnonzero(np.append(True, users[1:] != users[:-1])[: len(users)])
    number = np.arange(len(users)) - np.repeat(first, np.diff(first, append=len(users)))
    order[starts[users] + old_counts[users] + number] = len(old.users) + by_time
    if old.times is None or new.times is None:
        return order
    last_time = np.full(num_users, np.iinfo(np.int64).min)
    is_last = old.rank == old_counts[old.users] - 1
    last_time[old.users[is_last]] = old.times[is_last]
    late = np.zeros(num_users, dtype=np.bool_)
    late[users[first]] = new.times[by_time[first]] < last_time[users[first]]
    if late.any():
        places = np.flatnonzero(np.repeat(late, totals))
        mixed = _Events.joined([old, new]).select(order[places])
        order[places] = order[places][mixed.order()]
    return order


def _with_room(memory: Memory, arrivals: Arrivals) -> Memory:
    new_users = np.full(len(arrivals.user_ids), -1, np.int32)
    new_items = np.full(len(arrivals.item_ids), PAD, np.int32)
    return replace(
        memory,
        user_dense=np.concatenate([memory.user_dense, new_users]),
        item_dense=np.concatenate([memory.item_dense, new_items]),
    )


def _old_events(folder: StageFolder, memory: Memory, dropped: Dropped, numbers: NDArray[np.bool_]) -> _Events:
    """All old events, kept and removed, of the users with these numbers."""
    wanted = np.zeros(len(memory.lengths), dtype=np.bool_)
    dense = memory.user_dense[np.flatnonzero(numbers)]
    wanted[dense[dense >= 0]] = True
    has_times = dropped.times is not None
    own = np.flatnonzero(numbers[dropped.users])
    gone = dropped.select(own)
    parts = [
        _Events(
            users=gone.users,
            items=gone.items,
            times=gone.times,
            rank=gone.rank,
            origin=np.full(len(own), OLD_DROPPED, np.int8),
            source=own.astype(np.int32),
        )
    ]
    user_of, item_of = _numbers_of(memory.user_dense, -1), _numbers_of(memory.item_dense, PAD)
    removed = _RanksOfRemoved(gone)
    for part in read_sequence_rows(folder, wanted, with_times=has_times):
        parts.append(_kept_events(part, user_of, item_of, removed))
    return _Events.joined(parts)


def _numbers_of(dense: NDArray[np.int32], nothing: int) -> NDArray[np.int32]:
    """The number of each dense id; entries below the first dense id mean nothing."""
    numbers = np.flatnonzero(dense != nothing).astype(np.int32)
    inverse = np.full(int(dense.max(initial=0)) + 1, -1, np.int32)
    inverse[dense[numbers]] = numbers
    return inverse


class _RanksOfRemoved:
    """Tells the places that users' kept events have among all of their events, from those of the removed ones."""

    def __init__(self, removed: Dropped) -> None:
        order = np.lexsort((removed.rank, removed.users))
        self._users, self._ranks = removed.users[order], removed.rank[order].astype(np.int64)

    def of_kept(self, users: NDArray[np.int32], lengths: NDArray[np.int32]) -> NDArray[np.int32]:
        """The places of the kept events, of one user after the other."""
        first = np.searchsorted(self._users, users)
        num_removed = np.searchsorted(self._users, users, side="right") - first
        totals = lengths + num_removed
        starts = np.cumsum(totals) - totals
        is_kept = np.ones(int(totals.sum()), dtype=np.bool_)
        removed = ragged_places(first, num_removed)
        is_kept[np.repeat(starts, num_removed) + self._ranks[removed]] = False
        return (np.flatnonzero(is_kept) - np.repeat(starts, lengths)).astype(np.int32)


def _kept_events(
    part: SequenceRows, user_of: NDArray[np.int32], item_of: NDArray[np.int32], removed: _RanksOfRemoved
) -> _Events:
    numbers = user_of[part.users]
    num = len(part.items)
    return _Events(
        users=np.repeat(numbers, part.lengths),
        items=item_of[part.items],
        times=part.times,
        rank=removed.of_kept(numbers, part.lengths),
        origin=np.full(num, OLD_KEPT, np.int8),
        source=np.full(num, -1, np.int32),
    )


def _repeats(old: _Events, new: _Events, num_users: int) -> NDArray[np.bool_]:
    """[E] new events that equal an old one or an earlier new one."""
    again = np.zeros(len(new.users), dtype=np.bool_)
    if old.times is None or new.times is None:
        return again
    earliest = np.full(num_users, np.iinfo(np.int64).max)
    np.minimum.at(earliest, new.users, new.times)
    near = np.flatnonzero(old.times >= earliest[old.users])
    events = _Events.joined([old.select(near), new])
    events = events.select(events.order())
    if events.times is not None:
        mask = repeated(events.users, events.times, events.items) & (events.origin == NEW)
        again[events.source[mask]] = True
    return again


def _peel(
    memory: Memory, dropped: Dropped, new: _Events, least: tuple[int, int]
) -> tuple[NDArray[np.bool_], list[dict[str, int]]]:
    """Which of the removed and then the new events stay beside those that stay anyway."""
    users, items = np.concatenate([dropped.users, new.users]), np.concatenate([dropped.items, new.items])
    counts = []
    for dense, first, kept in ((memory.user_dense, 0, memory.lengths), (memory.item_dense, 1, memory.popularity)):
        own = np.zeros(len(dense), np.int64)
        own[dense >= first] = kept[dense[dense >= first] - first]
        counts.append(own)
    counts[0] += np.bincount(users, minlength=len(counts[0]))
    counts[1] += np.bincount(items, minlength=len(counts[1]))
    left = np.arange(len(users))
    rounds = [_round(counts)]
    while True:
        stays = (counts[0][users[left]] >= least[0]) & (counts[1][items[left]] >= least[1])
        if stays.all():
            break
        gone = left[~stays]
        counts[0] -= np.bincount(users[gone], minlength=len(counts[0]))
        counts[1] -= np.bincount(items[gone], minlength=len(counts[1]))
        left = left[stays]
        rounds.append(_round(counts))
    mask = np.zeros(len(users), dtype=np.bool_)
    mask[left] = True
    return mask, rounds


def _round(counts: list[NDArray[np.int64]]) -> dict[str, int]:
    users, items = (int(np.count_nonzero(own)) for own in counts)
    return {"users": users, "items": items, "interactions": int(counts[0].sum())}


def _with_dense(memory: Memory, events: _Events, kept: NDArray[np.bool_]) -> Memory:
    """Dense ids for users and items that come in, by number behind the others; and the new lengths and counts."""
    fresh = kept & (events.origin != OLD_KEPT)
    user_dense, item_dense = memory.user_dense.copy(), memory.item_dense.copy()
    users, items = np.unique(events.users[fresh]), np.unique(events.items[fresh])
    users, items = users[user_dense[users] < 0], items[item_dense[items] == PAD]
    user_dense[users] = len(memory.lengths) + np.arange(len(users), dtype=np.int32)
    item_dense[items] = len(memory.popularity) + 1 + np.arange(len(items), dtype=np.int32)
    num_users, num_items = len(memory.lengths) + len(users), len(memory.popularity) + len(items)
    lengths = np.zeros(num_users, np.int32)
    lengths[: len(memory.lengths)] = memory.lengths
    lengths += np.bincount(user_dense[events.users[fresh]], minlength=num_users).astype(np.int32)
    popularity = np.bincount(item_dense[events.items[fresh]], minlength=num_items + 1)[1:].astype(np.int32)
    popularity[: len(memory.popularity)] += memory.popularity
    num_train = np.zeros(num_items, np.int64)
    num_train[: len(memory.num_train)] = memory.num_train
    times = memory.time_range
    if events.times is not None and fresh.any():
        own = events.times[fresh]
        times = np.array([min(times[0], own.min()), max(times[1], own.max())], np.int64)
    return Memory(
        user_dense=user_dense,
        item_dense=item_dense,
        lengths=lengths,
        popularity=popularity,
        num_train=num_train,
        time_range=times,
    )


def _write_changed(
    folder: StageFolder,
    generation: int,
    memory: Memory,
    events: _Events,
    kept: NDArray[np.bool_],
    users: NDArray[np.int32],
) -> tuple[Memory, int, int]:
    """Write the whole histories of the users (numbers) that have more events now; returns the new training counts."""
    changes = np.zeros(len(memory.user_dense), dtype=np.bool_)
    changes[users] = True
    chosen = np.flatnonzero(kept & changes[events.users])
    chosen = chosen[np.argsort(memory.user_dense[events.users[chosen]], kind="stable")]
    dense = memory.user_dense[events.users[chosen]]
    first = np.flatnonzero(np.append(True, dense[1:] != dense[:-1])[: len(dense)])
    own_users, lengths = dense[first], np.diff(first, append=len(dense))
    split = leave_last_out(lengths)
    sequences = Sequences(
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        items=memory.item_dense[events.items[chosen]],
        num_train=split.num_train,
        num_validation=split.num_validation,
        num_items=len(memory.popularity),
    )
    times = None if events.times is None else events.times[chosen]
    folder.write_table(f"{CHANGED}/{generation:06d}.parquet", sequences.to_table(times, own_users), NUMBERS)
    before = _training_counts_before(memory, events, chosen, lengths)
    num_train = memory.num_train + sequences.training_counts()[1:] - before
    return replace(memory, num_train=num_train), len(own_users), len(chosen)


def _training_counts_before(
    memory: Memory, events: _Events, chosen: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[V] training events that the changed users had of each item before."""
    was_kept = events.origin[chosen] == OLD_KEPT
    owner = np.repeat(np.arange(len(lengths)), lengths)
    before = np.bincount(owner[was_kept], minlength=len(lengths))
    num_train = leave_last_out(before).num_train
    old = chosen[was_kept]
    place = np.arange(len(old)) - np.repeat(np.cumsum(before) - before, before)
    training = old[place < np.repeat(num_train, before)]
    items = memory.item_dense[events.items[training]]
    return np.bincount(items, minlength=len(memory.popularity) + 1)[1:]


def _joined_dropped(rest: Dropped, events: _Events, kept: NDArray[np.bool_]) -> Dropped:
    """Removed events of users without a change, and those of the others at their new places."""
    new_user = np.append(True, events.users[1:] != events.users[:-1])[: len(events.users)]
    starts = np.flatnonzero(new_user)
    lengths = np.diff(starts, append=len(events.users))
    rank = np.arange(len(events.users)) - np.repeat(starts, lengths)
    gone = ~kept
    times = None
    if rest.times is not None and events.times is not None:
        times = np.concatenate([rest.times, events.times[gone]])
    return Dropped(
        users=np.concatenate([rest.users, events.users[gone]]),
        items=np.concatenate([rest.items, events.items[gone]]),
        times=times,
        rank=np.concatenate([rest.rank, rank[gone].astype(np.int32)]),
    )
