"""New files of a log added to the tables that were made from the old ones, at the cost of what changes.

The k-core of a log stays in the core of a larger one, so users and items that stay keep their dense ids and only the
events that were removed before and the new ones, the candidates, are peeled again. Those of them that stay are written
to added/<generation>.parquet with their places in the histories. Where events out of turn belong, the latest events
of the log tell; only histories with older ones are read.

Numbers count all users and items that ever appeared; dense ids only those that stay. E events, U users, V items.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import PAD
from sracl_dist.data.added import write_added
from sracl_dist.data.arrivals import Arrivals
from sracl_dist.data.encode import ITEMS, ROWS
from sracl_dist.data.event_order import count_up, in_time_order, places_within, repeated, starts_of
from sracl_dist.data.recent import ALWAYS, Recent
from sracl_dist.data.state import Dropped, Memory
from sracl_dist.data.user_events import NEW, OLD_DROPPED, Events, OldEvents
from sracl_dist.run_folder import StageFolder

_ENOUGH = np.int32(1 << 30)
"""Stands for the events of what stays anyway; more than are ever taken away."""


@dataclass(frozen=True, kw_only=True)
class Addition:
    """What new files make of the tables."""

    memory: Memory
    dropped: Dropped
    recent: Recent | None
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
    recent: Recent | None,
    arrivals: Arrivals,
    least: tuple[int, int],
) -> Addition:
    """Write the histories that change, and return what else the tables become.

    Args:
        folder: the stage prepare.
        generation: the new generation.
        memory: of the old one; nothing else may hold it, or it takes its room twice.
        dropped: events that the k-core had removed.
        recent: the latest events; None where there are no times.
        arrivals: new events.
        least: data.min_user_interactions and data.min_item_interactions.

    Raises:
        StorageError: a table of the old generation is damaged.
    """
    memory = _with_room(memory, arrivals)
    new = Events.of_arrivals(arrivals)
    late = _late_users(memory, new)
    old = Events.joined(_old_events(OldEvents(folder, memory, dropped), recent, new, late))
    again = _repeats(old, new)
    new = new.select(~again)
    new = replace(new, source=np.arange(len(new.users), dtype=np.int32))
    stays, rounds = _peel(memory, dropped, new, least)
    candidates = _ranked(memory, dropped, old, new, late)
    _remember(memory, new)
    if recent is not None and new.times is not None:
        arrived = Recent(users=new.users, items=new.items, times=new.times, since=ALWAYS)
        recent = Recent.joined([recent, arrived]).latest(int(memory.totals.sum(dtype=np.int64)))
    memory, num_changed = write_added(folder, generation, memory, candidates, stays)
    return Addition(
        memory=memory,
        dropped=candidates.select(~stays),
        recent=recent,
        rounds=rounds,
        num_repeated=int(again.sum()),
        repeats={ROWS: arrivals.rows[again], ITEMS: arrivals.items[again]},
        num_changed=num_changed,
    )


def _with_room(memory: Memory, arrivals: Arrivals) -> Memory:
    """The arrays by number with room for users and items that are new; they are this addition's own, to be changed."""
    num_users, num_items = len(arrivals.user_ids), len(arrivals.item_ids)
    never = np.full(0 if arrivals.times is None else num_users, np.iinfo(np.int64).min)
    return replace(
        memory,
        user_dense=np.concatenate([memory.user_dense, np.full(num_users, -1, np.int32)]),
        item_dense=np.concatenate([memory.item_dense, np.full(num_items, PAD, np.int32)]),
        totals=np.concatenate([memory.totals, np.zeros(num_users, np.int32)]),
        last_times=np.concatenate([memory.last_times, never]),
    )


def _remember(memory: Memory, new: Events) -> None:
    """Add the new events to what is remembered of all events, whether they stay or not."""
    count_up(memory.totals, new.users, 1)
    if new.times is not None:
        np.maximum.at(memory.last_times, new.users.astype(np.intp), new.times)


def _late_users(memory: Memory, new: Events) -> NDArray[np.bool_]:
    """Users, by number, with a new event that is not later than all their old ones."""
    late = np.zeros(len(memory.user_dense), dtype=np.bool_)
    if new.times is not None:
        late[new.users[new.times <= memory.last_times[new.users]]] = True
    return late


def _old_events(old: OldEvents, recent: Recent | None, new: Events, late: NDArray[np.bool_]) -> list[Events]:
    """Old events of the late users, of each one at least those that are not before any of the new ones."""
    if recent is None or new.times is None:
        return [old.all_of(late)]
    reaches_back = np.zeros(len(late), dtype=np.bool_)
    reaches_back[new.users[new.times <= recent.since]] = True
    return [old.all_of(late & reaches_back), old.latest_of(late & ~reaches_back, recent)]


def _ranked(memory: Memory, dropped: Dropped, old: Events, new: Events, late: NDArray[np.bool_]) -> Dropped:
    """The removed and then the new events, each with its place among all events of its user, new ones included."""
    order = in_time_order(new.users, new.times)
    rank = np.empty(len(order), np.int32)
    rank[order] = memory.totals[new.users[order]] + places_within(new.users[order])
    ranks = np.concatenate([dropped.rank, rank])
    if late.any():
        mixed = Events.joined([old, new.select(late[new.users])])
        mixed = mixed.select(mixed.order())
        starts = starts_of(mixed.users)
        num_old = np.add.reduceat((mixed.origin != NEW).astype(np.int64), starts)
        # Old events that are not in `old` are before all new ones.
        num_before = memory.totals[mixed.users[starts]] - num_old
        places = np.repeat(num_before, np.diff(starts, append=len(mixed.users))) + places_within(mixed.users)
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
    """Which of the removed and then the new events stay beside those that stay anyway.

    Users and items with dense ids keep them whatever is removed, so only what the others have is counted.
    """
    users, items = np.concatenate([dropped.users, new.users]), np.concatenate([dropped.items, new.items])
    stay_anyway = memory.user_dense >= 0, memory.item_dense != PAD
    counts = [np.where(own, _ENOUGH, np.int32(0)) for own in stay_anyway]
    left = np.flatnonzero(~(stay_anyway[0][users] & stay_anyway[1][items]))
    stays = np.ones(len(users), dtype=np.bool_)
    num_events = int(memory.popularity.sum(dtype=np.int64)) + len(users)
    users, items = users[left], items[left]
    count_up(counts[0], users, 1)
    count_up(counts[1], items, 1)
    rounds = [_round(counts, num_events)]
    while True:
        enough = (counts[0][users] >= least[0]) & (counts[1][items] >= least[1])
        if enough.all():
            return stays, rounds
        gone = np.flatnonzero(~enough)
        stays[left[gone]] = False
        count_up(counts[0], users[gone], -1)
        count_up(counts[1], items[gone], -1)
        left, users, items = left[enough], users[enough], items[enough]
        num_events -= len(gone)
        rounds.append(_round(counts, num_events))


def _round(counts: list[NDArray[np.int32]], num_events: int) -> dict[str, int]:
    users, items = (int(np.count_nonzero(own)) for own in counts)
    return {"users": users, "items": items, "interactions": num_events}
