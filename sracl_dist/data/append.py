"""New files of a log added to the tables that were made from the old ones, at the cost of what changes.

The k-core of a log stays in the core of a larger one, so users and items that stay keep their dense ids and only the
events that were removed before and the new ones, the candidates, are peeled again. Those of them that stay are written
to added/<generation>.parquet with their places in the histories; only histories with events out of turn are read.

Numbers count all users and items that ever appeared; dense ids only those that stay. E events, U users, V items.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sracl_dist.artifacts import StageFolder
from sracl_dist.columns import PAD
from sracl_dist.data.added import write_added
from sracl_dist.data.arrivals import Arrivals
from sracl_dist.data.encode import ITEMS, ROWS
from sracl_dist.data.event_order import in_time_order, repeated, starts_of
from sracl_dist.data.state import Dropped, Memory
from sracl_dist.data.user_events import NEW, OLD_DROPPED, Events, old_events


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
    new = Events.of_arrivals(arrivals)
    late = _late_users(memory, new)
    old = old_events(folder, memory, dropped, late)
    again = _repeats(old, new)
    new = new.select(~again)
    new = replace(new, source=np.arange(len(new.users), dtype=np.int32))
    stays, rounds = _peel(memory, dropped, new, least)
    candidates = _ranked(memory, dropped, old, new, late)
    memory, num_changed = write_added(folder, generation, _with_new(memory, new), candidates, stays)
    return Addition(
        memory=memory,
        dropped=candidates.select(~stays),
        rounds=rounds,
        num_repeated=int(again.sum()),
        repeats={ROWS: arrivals.rows[again], ITEMS: arrivals.items[again]},
        num_changed=num_changed,
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


def _with_new(memory: Memory, new: Events) -> Memory:
    """What is remembered of all events, whether they stay or not, with the new ones."""
    totals = memory.totals + np.bincount(new.users, minlength=len(memory.totals)).astype(np.int32)
    last_times = memory.last_times.copy()
    if new.times is not None:
        np.maximum.at(last_times, new.users, new.times)
    return replace(memory, totals=totals, last_times=last_times)


def _late_users(memory: Memory, new: Events) -> NDArray[np.bool_]:
    """Users, by number, with a new event that is not later than all their old ones: only these histories are read."""
    late = np.zeros(len(memory.user_dense), dtype=np.bool_)
    if new.times is not None:
        late[new.users[new.times <= memory.last_times[new.users]]] = True
    return late


def _ranked(memory: Memory, dropped: Dropped, old: Events, new: Events, late: NDArray[np.bool_]) -> Dropped:
    """The removed and then the new events, each with its place among all events of its user, new ones included."""
    order = in_time_order(new.users, new.times)
    rank = np.empty(len(order), np.int32)
    rank[order] = memory.totals[new.users[order]] + _places_within(new.users[order])
    ranks = np.concatenate([dropped.rank, rank])
    if late.any():
        mixed = Events.joined([old, new.select(late[new.users])])
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
    starts = starts_of(users)
    return np.arange(len(users)) - np.repeat(starts, np.diff(starts, append=len(users)))


def _repeats(old: Events, new: Events) -> NDArray[np.bool_]:
    """[E] new events that equal an old one or an earlier new one."""
    again = np.zeros(len(new.users), dtype=np.bool_)
    events = Events.joined([old, new])
    events = events.select(events.order())
    if events.times is not None:
        mask = repeated(events.users, events.times, events.items) & (events.origin == NEW)
        again[events.source[mask]] = True
    return again


def _peel(
    memory: Memory, dropped: Dropped, new: Events, least: tuple[int, int]
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
