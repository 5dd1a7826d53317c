"""New files of a log added to the tables that were made from the old ones, at the cost of what changes.

The k-core of a log stays in the core of a larger one, so users and items that stay keep their dense ids and only the
events that were removed before and the new ones, the candidates, are peeled again. Those of them that stay are written
to added/<generation>.parquet with their places in the histories; only histories with events out of turn are read.

Numbers count all users and items that ever appeared; dense ids only those that stay. E events, U users, V items.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.artifacts import StageFolder
from sracl_dist.columns import ITEM, PAD, PLACE, TIME, USER
from sracl_dist.data.encode import (
    ENCODED,
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
from sracl_dist.data.sequences import ADDED, SequenceRows, read_sequence_rows
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
    """[E] see Piece.row_ids."""
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
    """Rows and items (numbers) of new events that are duplicates."""
    num_changed: int
    """Users whose histories changed."""


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
    parts: dict[str, list[NDArray]] = {name: [] for name in (USERS, ITEMS, TIMES, ROWS)}
    for split in splits:
        with open_groups(
            folder,
            split_name(ENCODED, split),
            [USERS, ITEMS, TIMES, ROWS, USER_IDS, USER_HASHES, ITEM_IDS, ITEM_HASHES],
        ) as reader:
            for block in range(len(reader)):
                _add_block(reader, block, registers, first_ids, parts)
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
    parts[ROWS].append(reader.numpy(block, ROWS))
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
    new = _Events.of_arrivals(arrivals)
    late = _late_users(memory, new)
    old = _old_events(folder, memory, dropped, late)
    again = _repeats(old, new)
    new = new.select(~again)
    new = replace(new, source=np.arange(len(new.users), dtype=np.int32))
    stays, rounds = _peel(memory, dropped, new, least)
    candidates = _ranked(memory, dropped, old, new, late)
    memory, num_changed = _write_added(folder, generation, _with_new(memory, new), candidates, stays)
    return Addition(
        memory=memory,
        dropped=candidates.select(~stays),
        rounds=rounds,
        num_repeated=int(again.sum()),
        repeats={ROWS: arrivals.rows[again], ITEMS: arrivals.items[again]},
        num_changed=num_changed,
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


def _with_room(memory: Memory, arrivals: Arrivals) -> Memory:
    """The arrays by number with room for users and items that are new."""
    num_users, num_items = len(arrivals.user_ids), len(arrivals.item_ids)
    never = np.full(0 if arrivals.times is None else num_users, np.iinfo(np.int64).min)
    return replace(
        memory,
        user_dense=np.concatenate([memory.user_dense, np.full(num_users, -1, np.int32)]),
        item_dense=np.concatenate([memory.item_dense, np.full(num_items, PAD, np.int32)]),
        totals=np.concatenate([memory.totals, np.zeros(num_users, np.int32)]),
        last_times=np.concatenate([memory.last_times, never]),
    )


def _with_new(memory: Memory, new: _Events) -> Memory:
    """What is remembered of all events, whether they stay or not, with the new ones."""
    totals = memory.totals + np.bincount(new.users, minlength=len(memory.totals)).astype(np.int32)
    last_times = memory.last_times.copy()
    if new.times is not None:
        np.maximum.at(last_times, new.users, new.times)
    return replace(memory, totals=totals, last_times=last_times)


def _late_users(memory: Memory, new: _Events) -> NDArray[np.bool_]:
    """Users, by number, with a new event that is not later than all their old ones: only these histories are read."""
    late = np.zeros(len(memory.user_dense), dtype=np.bool_)
    if new.times is not None:
        late[new.users[new.times <= memory.last_times[new.users]]] = True
    return late


def _ranked(memory: Memory, dropped: Dropped, old: _Events, new: _Events, late: NDArray[np.bool_]) -> Dropped:
    """The removed and then the new events, each with its place among all events of its user, new ones included."""
    order = in_time_order(new.users, new.times)
    rank = np.empty(len(order), np.int32)
    rank[order] = memory.totals[new.users[order]] + _places_within(new.users[order])
    ranks = np.concatenate([dropped.rank, rank])
    if late.any():
        mixed = _Events.joined([old, new.select(late[new.users])])
        mixed = mixed.select(mixed.order())
        places = _places_within(mixed.users)
        for origin, first in ((OLD_DROPPED, 0), (NEW, len(dropped.users))):
            own = mixed.origin == origin
            ranks[first + mixed.source[own].astype(np.int64)] = places[own]
    times = None
    if dropped.times is not None and new.times is not None:
        times = np.concatenate([dropped.times, new.times])
    return Dropped(
        users=np.concatenate([dropped.users, new.users]),
        items=np.concatenate([dropped.items, new.items]),
        times=times,
        rank=ranks,
    )


def _places_within(users: NDArray[np.integer]) -> NDArray[np.int64]:
    """The place of each row among those of its user, whose rows stand together."""
    starts = _starts(users)
    return np.arange(len(users)) - np.repeat(starts, np.diff(starts, append=len(users)))


def _starts(users: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where the rows of each user begin."""
    return np.flatnonzero(np.append(True, users[1:] != users[:-1])[: len(users)])


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
    if wanted.any():
        user_of, item_of = _numbers_of(memory.user_dense, -1), _numbers_of(memory.item_dense, PAD)
        histories = read_sequence_rows(folder, wanted, with_times=has_times)
        parts.append(_kept_events(histories, user_of, item_of, _RanksOfRemoved(gone)))
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
        removed = _ragged_places(first, num_removed)
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


def _repeats(old: _Events, new: _Events) -> NDArray[np.bool_]:
    """[E] new events that equal an old one or an earlier new one."""
    again = np.zeros(len(new.users), dtype=np.bool_)
    events = _Events.joined([old, new])
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
    starts = _starts(users)
    lengths = np.diff(starts, append=len(users))
    places = candidates.rank[rows] - (gone_before - np.repeat(gone_before[starts], lengths))
    owners = np.repeat(np.arange(len(starts)), lengths)
    return _Added(rows=rows[own_stays], places=places[own_stays], owners=owners[own_stays], users=users[starts])


def _write_added(
    folder: StageFolder, generation: int, memory: Memory, candidates: Dropped, stays: NDArray[np.bool_]
) -> tuple[Memory, int]:
    """Write the events that come in; returns the counts with them, and how many users have some."""
    added = _added(candidates, stays, len(memory.user_dense))
    before = memory.lengths
    memory = _with_dense(memory, added.users, candidates.items[added.rows])
    users = memory.user_dense[added.users]
    old_lengths = np.zeros(len(users), np.int64)
    known = users < len(before)
    old_lengths[known] = before[users[known]]
    items = memory.item_dense[candidates.items[added.rows]]
    lengths, last_items = memory.lengths.copy(), memory.last_items.reshape(-1, 2).copy()
    lengths[users] = old_lengths + np.bincount(added.owners, minlength=len(users))
    changes, last_items[users] = _moved(added, items, old_lengths, lengths[users], last_items[users], memory)
    popularity = memory.popularity + np.bincount(items, minlength=len(memory.popularity) + 1)[1:].astype(np.int32)
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
        lengths=lengths,
        popularity=popularity,
        num_train=memory.num_train + changes,
        last_items=last_items.ravel(),
        time_range=time_range,
    )
    return memory, len(users)


def _with_dense(memory: Memory, user_numbers: NDArray[np.int32], item_numbers: NDArray[np.int32]) -> Memory:
    """Dense ids behind the others, by number, for users and items that come in, and room for them elsewhere."""
    user_dense, item_dense = memory.user_dense.copy(), memory.item_dense.copy()
    users, items = np.unique(user_numbers), np.unique(item_numbers)
    users, items = users[user_dense[users] < 0], items[item_dense[items] == PAD]
    user_dense[users] = len(memory.lengths) + np.arange(len(users), dtype=np.int32)
    item_dense[items] = len(memory.popularity) + 1 + np.arange(len(items), dtype=np.int32)
    return replace(
        memory,
        user_dense=user_dense,
        item_dense=item_dense,
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


def _ragged_places(starts: NDArray[np.int64], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Places starts[i] .. starts[i] + lengths[i] - 1 for one i after the other."""
    before = np.cumsum(lengths) - lengths
    places: NDArray[np.int64] = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)
    return places
