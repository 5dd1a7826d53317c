"""The latest events of a log, among which late ones find their places and their repeats without a look at histories.

    state/<generation>.recent.arrow    one group: users and items (numbers), times, and the time since when

Events come hours or days late, not years, so that a small share of a log is enough for nearly all of them. E events.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sracl_dist.data.encode import ITEMS, TIMES, USERS
from sracl_dist.data.groups import Group, GroupReader, open_groups, write_groups
from sracl_dist.run_folder import StageFolder

RECENT_SHARE = 0.02
"""Of all events; 16 bytes each, read and written by every addition."""
SINCE = "since"
ALWAYS = int(np.iinfo(np.int64).min)
"""`since` of all events of a log."""
NAMES = (USERS, ITEMS, TIMES, SINCE)


@dataclass(frozen=True, kw_only=True)
class Recent:
    """All different events after a time, kept and removed ones, in any order.

    Which of a user's events at the same time came first is not needed: new ones have their places behind all of them.
    """

    users: NDArray[np.int32]
    """[E]"""
    items: NDArray[np.int32]
    """[E]"""
    times: NDArray[np.int64]
    """[E]"""
    since: int

    @classmethod
    def joined(cls, parts: "Sequence[Recent]") -> "Recent":
        """The events of all parts, as far back as all of them reach."""
        since = max(part.since for part in parts)
        parts = [part.after(since) for part in parts]
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (USERS, ITEMS, TIMES)}
        return cls(**columns, since=since)

    def after(self, time: int) -> "Recent":
        """Those later than a time, which is not before `since`."""
        if time == self.since:
            return self
        later = self.times > time
        return Recent(users=self.users[later], items=self.items[later], times=self.times[later], since=time)

    def latest(self, num_events: int) -> "Recent":
        """The share RECENT_SHARE of a log of so many events; fewer where more are at the same time."""
        num_older = len(self.times) - math.ceil(RECENT_SHARE * num_events)
        if num_older <= 0:
            return self
        return self.after(int(np.partition(self.times, num_older - 1)[num_older - 1]))

    def group(self) -> Group:
        """The arrays to be written."""
        return {USERS: self.users, ITEMS: self.items, TIMES: self.times, SINCE: np.array([self.since], np.int64)}


def time_of_recent(some_times: Sequence[NDArray[np.int64]], nums_events: Sequence[int]) -> int:
    """The time after which the share RECENT_SHARE of all events is, or less where many are at the same time.

    Args:
        some_times: of each part of a log, evenly taken.
        nums_events: how many events each part has.
    """
    times = np.concatenate(some_times)
    each = [np.full(len(own), num / max(1, len(own))) for own, num in zip(some_times, nums_events, strict=True)]
    order = np.argsort(times)
    num_until = np.cumsum(np.concatenate(each)[order])
    place = int(np.searchsorted(num_until, (1 - RECENT_SHARE) * sum(nums_events)))
    return int(times[order[min(place, len(order) - 1)]])


def recent_in(reader: GroupReader) -> Recent:
    """What `Recent.group` put into a file of one group."""
    users, items, times, since = (reader.numpy(0, name) for name in NAMES)
    return Recent(users=users, items=items, times=times, since=int(since[0]))


def save_recent(folder: StageFolder, generation: int, recent: Recent) -> None:
    """Write a generation's latest events."""
    write_groups(folder, _name(generation), [recent.group()])


def load_recent(folder: StageFolder, generation: int) -> Recent:
    """The latest events of a generation of a log with times.

    Raises:
        StorageError: the file is missing or damaged.
    """
    with open_groups(folder, _name(generation), NAMES) as reader:
        return recent_in(reader)


def _name(generation: int) -> str:
    return f"state/{generation:06d}.recent.arrow"
