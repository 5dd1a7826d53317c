"""Old and new events of users together, when files are added to a log; users and items by number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import PAD
from sracl_dist.data.arrivals import Arrivals
from sracl_dist.data.event_order import in_time_order, places_within, starts_of
from sracl_dist.data.recent import Recent
from sracl_dist.data.sequences import SequenceRows, read_sequence_rows
from sracl_dist.data.state import LOG, STATE, Dropped, Memory
from sracl_dist.errors import StorageError
from sracl_dist.run_folder import StageFolder

OLD_KEPT, OLD_DROPPED, NEW = 0, 1, 2
"""Where an event comes from."""


@dataclass(frozen=True, kw_only=True)
class Events:
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
    def of_arrivals(cls, arrivals: Arrivals) -> "Events":
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
    def joined(cls, parts: "list[Events]") -> "Events":
        """All of them."""
        names = ("users", "items", "rank", "origin", "source")
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        times = [part.times for part in parts if part.times is not None]
        return cls(times=np.concatenate(times) if times else None, **columns)

    def order(self) -> NDArray[np.int64]:
        """The order by user, time and arrival."""
        keys = (self.rank, self.origin == NEW)
        return np.lexsort((*keys, self.users) if self.times is None else (*keys, self.times, self.users))

    def select(self, chosen: NDArray) -> "Events":
        """Only these, in this order."""
        return Events(
            users=self.users[chosen],
            items=self.items[chosen],
            times=None if self.times is None else self.times[chosen],
            rank=self.rank[chosen],
            origin=self.origin[chosen],
            source=self.source[chosen],
        )


class OldEvents:
    """Where old events are found, kept and removed ones."""

    def __init__(self, folder: StageFolder, memory: Memory, dropped: Dropped) -> None:
        """`folder` is the stage prepare."""
        self._folder, self._memory, self._dropped = folder, memory, dropped

    def all_of(self, numbers: NDArray[np.bool_]) -> Events:
        """All events of the users with these numbers, out of the histories."""
        wanted = np.zeros(len(self._memory.lengths), dtype=np.bool_)
        dense = self._memory.user_dense[np.flatnonzero(numbers)]
        wanted[dense[dense >= 0]] = True
        own = np.flatnonzero(numbers[self._dropped.users])
        gone = self._dropped.select(own)
        parts = [
            Events(
                users=gone.users,
                items=gone.items,
                times=gone.times,
                rank=gone.rank,
                origin=np.full(len(own), OLD_DROPPED, np.int8),
                source=own.astype(np.int32),
            )
        ]
        if wanted.any():
            user_of, item_of = _numbers_of(self._memory.user_dense, -1), _numbers_of(self._memory.item_dense, PAD)
            histories = read_sequence_rows(self._folder, wanted, with_times=gone.times is not None)
            parts.append(_kept_events(histories, user_of, item_of, _RanksOfRemoved(gone)))
        return Events.joined(parts)

    def latest_of(self, numbers: NDArray[np.bool_], recent: Recent) -> Events:
        """The events after `recent.since` of the users with these numbers.

        Raises:
            StorageError: removed events are not among the recent ones.
        """
        chosen = np.flatnonzero(numbers[recent.users])
        chosen = chosen[in_time_order(recent.users[chosen], recent.times[chosen])]
        users = recent.users[chosen]
        num_latest = np.diff(starts_of(users), append=len(users))
        rank = self._memory.totals[users] - np.repeat(num_latest, num_latest) + places_within(users)
        origin, source = np.full(len(users), OLD_KEPT, np.int8), np.full(len(users), -1, np.int32)
        own = np.flatnonzero(numbers[self._dropped.users])
        if self._dropped.times is not None:
            own = own[self._dropped.times[own] > recent.since]
        keys, wanted = _key(users, rank), _key(self._dropped.users[own], self._dropped.rank[own])
        places = np.searchsorted(keys, wanted)
        if not np.array_equal(keys[places[places < len(keys)]], wanted):
            raise StorageError(
                f"{self._folder.shown(STATE)} does not fit together; delete {self._folder.shown(LOG)} and run the "
                f"stage prepare again."
            )
        origin[places], source[places] = OLD_DROPPED, own
        return Events(
            users=users,
            items=recent.items[chosen],
            times=recent.times[chosen],
            rank=rank.astype(np.int32),
            origin=origin,
            source=source,
        )


def _key(users: NDArray[np.int32], ranks: NDArray[np.integer]) -> NDArray[np.int64]:
    """A number that orders events by user and rank."""
    key: NDArray[np.int64] = (users.astype(np.int64) << 32) | ranks
    return key


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
) -> Events:
    numbers = user_of[part.users]
    num = len(part.items)
    return Events(
        users=np.repeat(numbers, part.lengths),
        items=item_of[part.items],
        times=part.times,
        rank=removed.of_kept(numbers, part.lengths),
        origin=np.full(num, OLD_KEPT, np.int8),
        source=np.full(num, -1, np.int32),
    )


def _ragged_places(starts: NDArray[np.int64], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """Places starts[i] .. starts[i] + lengths[i] - 1 for one i after the other."""
    before = np.cumsum(lengths) - lengths
    places: NDArray[np.int64] = np.arange(int(lengths.sum()), dtype=np.int64) + np.repeat(starts - before, lengths)
    return places
