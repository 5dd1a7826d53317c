"""The rows of one shard: sessions of humans, visits of bots, repeats, in the order in which they arrive.

A shard covers a slice of time. Its rows arrive within the slice and are sorted by arrival; those of late sessions
happened earlier, at most one slice before. Times are multiples of 4 ms plus 0 for a row in time, 1 for a late one of
the same slice and 2 for one of the slice before, so that rows of different shards are never equal; the last row in time
is 4 ms before the end of the slice, so that the latest time before a shard is known without reading the others.

M sessions, R rows before repeats, V items, G interests.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.bench.synthetic_log.population import Integers, Population
from sracl_dist.bench.synthetic_log.settings import BLOCK_ITEMS, SyntheticLogSettings

STEPS = np.array([1, 2, 3])
"""A successor stands so many places further on in the cycle of its block."""
STEP_SHARES = (0.7, 0.2, 0.1)
INTERACTIONS_STREAM, ITEMS_STREAM = 0, 1
MIN_DELAY_MS = 1000
REPEAT_DELAY_MS = 20_000
"""Mean time after which a repeated row arrives."""
MAX_SESSION_EVENTS = 200


@dataclass(kw_only=True)
class Counts:
    """What was planted, counted in the rows that were written."""

    events: int = 0
    duplicates: int = 0
    """Rows that repeat another one."""
    out_of_order: int = 0
    """Rows behind one with a later time, all files read in order."""
    bot_events: int = 0
    inside_events: int = 0
    """Rows of humans about one of their own interests."""
    sessions: int = 0
    first_ms: int = 2**62
    last_ms: int = -(2**62)
    interest_events: list[int] = field(default_factory=list)
    """Rows of humans by interest."""

    def add(self, other: dict[str, Any]) -> None:
        """Count another shard's."""
        for name, value in other.items():
            if name in ("first_ms", "last_ms"):
                setattr(self, name, (min if name == "first_ms" else max)(getattr(self, name), value))
            elif name == "interest_events":
                before = self.interest_events or [0] * len(value)
                self.interest_events = [one + more for one, more in zip(before, value, strict=True)]
            else:
                setattr(self, name, getattr(self, name) + value)

    def values(self) -> dict[str, Any]:
        """As JSON can hold them."""
        return asdict(self)


@dataclass(frozen=True)
class Events:
    """Rows in the order of their arrival."""

    user: Integers
    item: Integers
    time_ms: Integers
    counts: Counts


@dataclass(frozen=True)
class _Sessions:
    """[M] sessions; lone visits are sessions of one event."""

    user: Integers
    interest: Integers
    length: Integers
    place: Integers
    """Place of the first item, or -1 where it is to be drawn."""


def shard_events(population: Population, shard: int) -> Events:
    """The rows of a shard; they depend on the settings and the shard's number alone."""
    settings = population.settings
    random = np.random.default_rng([settings.seed, INTERACTIONS_STREAM, shard])
    num_repeats = settings.part_of(int(settings.num_events * settings.duplicate_share), shard)
    num_bot_events = settings.part_of(int(settings.num_events * settings.bot_share), shard)
    num_rows = settings.part_of(settings.num_events, shard) - num_repeats
    sessions = _sessions(population, shard, num_rows - num_bot_events, random)
    num_humans_rows = num_rows - num_bot_events
    user, place = np.empty(num_rows, np.int64), np.empty(num_rows, np.int64)
    session_R = np.repeat(np.arange(len(sessions.length)), sessions.length)
    user[:num_humans_rows] = sessions.user[session_R]
    place[:num_humans_rows] = _walk(population, shard, sessions, session_R, random)
    user[num_humans_rows:], place[num_humans_rows:] = _bot_visits(population, shard, num_bot_events, random)
    arrival_ms, time_ms = _times(population, shard, sessions, num_bot_events, random)
    source = np.concatenate([np.arange(num_rows), random.choice(num_rows, num_repeats, replace=False)])
    waits_ms = random.exponential(REPEAT_DELAY_MS, num_repeats).astype(np.int64)
    arrives_ms = arrival_ms[source]
    arrives_ms[num_rows:] += waits_ms
    source = source[_order(arrives_ms - population.start_ms(shard))]
    user, time_ms, item = user[source], time_ms[source], population.items_at(place)[source]
    counts = _counted(population, shard, user, item, time_ms)
    counts.sessions = len(sessions.length)
    return Events(user, item, time_ms, counts)


def _sessions(population: Population, shard: int, num_rows: int, random: np.random.Generator) -> _Sessions:
    """One visit to each item that makes its debut, one of each certain user, and sessions for the rest of the rows."""
    settings = population.settings
    debuts = np.flatnonzero(population.debut_V == shard)
    debut_interest = population.items_at(debuts) % settings.num_interests
    certain = population.certain_users(shard)
    length = _lengths(num_rows - len(debuts) - len(certain), settings.session_events, random)
    drawn = _draw_users(settings, len(debuts) + len(length), random)
    fans = drawn[: len(debuts)] // settings.num_interests * settings.num_interests + debut_interest
    fans = np.where(fans < settings.num_humans, fans, debut_interest)
    free_users = np.concatenate([certain, drawn[len(debuts) :]])
    return _Sessions(
        user=np.concatenate([fans, free_users]),
        interest=np.concatenate([debut_interest, _draw_interests(population, shard, free_users, random)]),
        length=np.concatenate([np.ones(len(debuts) + len(certain), np.int64), length]),
        place=np.concatenate([debuts, np.full(len(free_users), -1)]),
    )


def _lengths(num_rows: int, mean: float, random: np.random.Generator) -> Integers:
    """Geometric numbers of events that sum up to the rows."""
    expected = int(num_rows / mean * 1.1) + 100
    lengths = np.zeros(0, np.int64)
    while lengths.sum() < num_rows:
        more = np.minimum(random.geometric(1 / mean, expected), MAX_SESSION_EVENTS)
        lengths = np.concatenate([lengths, more])
    ends = np.cumsum(lengths)
    lengths = lengths[: np.searchsorted(ends, num_rows) + 1]
    if len(lengths):
        lengths[-1] -= ends[len(lengths) - 1] - num_rows
    return lengths[lengths > 0]


def _draw_users(settings: SyntheticLogSettings, num: int, random: np.random.Generator) -> Integers:
    """Humans by activity: the inverse of the integral of the power law, without a table."""
    chance, size, exponent = random.random(num), settings.num_humans, 1 - settings.user_exponent
    if abs(exponent) < 1e-9:
        rank = np.exp(chance * math.log(size + 1)) - 1
    else:
        rank = (1 + chance * ((size + 1) ** exponent - 1)) ** (1 / exponent) - 1
    return np.minimum(rank.astype(np.int64), size - 1)


def _draw_interests(population: Population, shard: int, users: Integers, random: np.random.Generator) -> Integers:
    """[M] what each session is about: mostly an interest of its user, rather one that is in fashion."""
    settings = population.settings
    trend_G = population.trend(shard)
    interests = population.user_interests(users)
    limits = np.cumsum(trend_G[interests] * 0.5 ** np.arange(settings.interests_per_user), axis=1)
    chance = random.random(len(users)) * limits[:, -1]
    slot = (chance[:, None] >= limits[:, :-1]).sum(axis=1)
    own = np.take_along_axis(interests, slot[:, None], axis=1)[:, 0]
    any_of_all = np.searchsorted(np.cumsum(trend_G / trend_G.sum()), random.random(len(users)))
    any_of_all = np.minimum(any_of_all, settings.num_interests - 1)
    return np.where(random.random(len(users)) < settings.outside_share, any_of_all, own)


def _walk(
    population: Population, shard: int, sessions: _Sessions, session_R: Integers, random: np.random.Generator
) -> Integers:
    """[R] places of the items: runs through the cycle of a block, each begun at an item drawn by popularity."""
    num_rows = len(session_R)
    begins = random.random(num_rows, np.float32) >= population.settings.follow_share
    begins[np.cumsum(sessions.length) - sessions.length] = True
    starts = np.flatnonzero(begins)
    session_of_start = session_R[starts]
    first = _draw_places(population, shard, sessions.interest[session_of_start], random)
    is_first_of_session = np.concatenate([[True], session_of_start[1:] != session_of_start[:-1]])
    given = sessions.place[session_of_start]
    first = np.where(is_first_of_session & (given >= 0), given, first)
    chance = random.random(num_rows, np.float32)
    walked = np.cumsum(STEPS[sum((chance >= limit).astype(np.int8) for limit in np.cumsum(STEP_SHARES[:-1]))])
    run_R = np.cumsum(begins) - 1
    interest_first = population.first_G[sessions.interest[session_of_start]]
    interest_size = population.first_G[sessions.interest[session_of_start] + 1] - interest_first
    rank = first - interest_first
    base = rank // BLOCK_ITEMS * BLOCK_ITEMS
    block_size = np.minimum(interest_size - base, BLOCK_ITEMS)
    offset = rank - base - walked[starts]
    return (interest_first + base)[run_R] + (offset[run_R] + walked) % block_size[run_R]


def _draw_places(population: Population, shard: int, interest: Integers, random: np.random.Generator) -> Integers:
    """[N] places by popularity within each one's interest: the inverse of the cumulated weights."""
    ends_V = np.cumsum(population.weights(shard))
    limits_G = np.concatenate([[0.0], ends_V])[population.first_G]
    low, high = limits_G[interest], limits_G[interest + 1]
    wanted = low + random.random(len(interest)) * (high - low)
    order = _order((wanted * (2.0**36 / ends_V[-1])).astype(np.int64))
    places = np.empty(len(interest), np.int64)
    places[order] = np.searchsorted(ends_V, wanted[order], side="right")  # in order, or the cache would miss each time
    return np.clip(places, population.first_G[interest], population.first_G[interest + 1] - 1)


def _bot_visits(population: Population, shard: int, num: int, random: np.random.Generator) -> tuple[Integers, Integers]:
    """Users and places of visits of bots, who take turns and visit whatever is there."""
    settings = population.settings
    if num == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    before = int(settings.num_events * settings.bot_share) * shard // settings.num_shards
    turn = (before + np.arange(num)) % settings.num_bots
    born = np.flatnonzero(population.is_born(shard))
    return settings.num_humans + turn, born[random.integers(len(born), size=num)]


def _times(
    population: Population, shard: int, sessions: _Sessions, num_bot_events: int, random: np.random.Generator
) -> tuple[Integers, Integers]:
    """[R] when each row arrives, which is within the slice, and when it happened."""
    settings = population.settings
    start_ms, slice_ms = population.start_ms(shard), population.slice_ms
    num_sessions, num_rows = len(sessions.length), int(sessions.length.sum())
    gaps = random.exponential(settings.gap_s * 1000, num_rows) + 1000
    first_rows = np.cumsum(sessions.length) - sessions.length
    gaps[first_rows] = 0
    passed = np.cumsum(gaps)
    session_R = np.repeat(np.arange(num_sessions), sessions.length)
    passed -= passed[first_rows][session_R]
    duration = passed[first_rows + sessions.length - 1]
    squeeze = np.minimum(1, 0.5 * slice_ms / np.maximum(duration, 1))
    begin = random.random(num_sessions) * (slice_ms - 8 - duration * squeeze)
    arrival = begin[session_R] + passed * squeeze[session_R]
    arrival = np.concatenate([arrival, random.random(num_bot_events) * (slice_ms - 8)])
    arrival_ms = start_ms + arrival.astype(np.int64) // 4 * 4
    delay = np.where(
        random.random(num_sessions) < settings.late_share,
        MIN_DELAY_MS + random.exponential(settings.late_hours * 3_600_000, num_sessions),
        0,
    )
    delay = np.minimum(delay, begin + (slice_ms if shard else 0))
    delay_R = np.concatenate([delay[session_R], np.zeros(num_bot_events)]).astype(np.int64) // 4 * 4
    is_late = delay_R > 0
    time_ms = arrival_ms - delay_R
    time_ms += is_late + (is_late & (time_ms < start_ms))
    in_time = np.flatnonzero(~is_late)
    if len(in_time):
        last = in_time[np.argmax(arrival_ms[in_time])]
        arrival_ms[last] = time_ms[last] = start_ms + slice_ms - 4
    return arrival_ms, time_ms


def _counted(population: Population, shard: int, user: Integers, item: Integers, time_ms: Integers) -> Counts:
    """Count what the rows hold; `sessions` is left to the caller."""
    settings = population.settings
    latest_before = population.start_ms(shard) - 4 if shard else time_ms[0]
    latest = np.maximum(np.maximum.accumulate(time_ms), latest_before)
    is_human = user < settings.num_humans
    interest = item % settings.num_interests
    is_own = np.zeros(len(user), np.bool_)
    for slot_interests in population.user_interests(user).T:
        is_own |= slot_interests == interest
    return Counts(
        events=len(user),
        duplicates=_num_repeated(user, item, time_ms),
        out_of_order=int((time_ms < latest).sum()),
        bot_events=int((~is_human).sum()),
        inside_events=int((is_own & is_human).sum()),
        first_ms=int(time_ms.min()),
        last_ms=int(time_ms.max()),
        interest_events=np.bincount(interest[is_human], minlength=settings.num_interests).tolist(),
    )


def _num_repeated(user: Integers, item: Integers, time_ms: Integers) -> int:
    """Rows that equal another one; only those at times that occur twice are compared."""
    order = _order(time_ms - time_ms.min())
    sorted_ms = time_ms[order]
    same = sorted_ms[1:] == sorted_ms[:-1]
    tied = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])]
    rows: NDArray[np.int64] = np.stack([time_ms[tied], user[tied], item[tied]])
    rows = rows[:, np.lexsort(rows)]
    return int((rows[:, 1:] == rows[:, :-1]).all(axis=0).sum())


def _order(numbers: Integers) -> Integers:
    """A stable argsort of numbers from 0 up to 2^63 / 2^bits of their number: one sort of plain integers."""
    bits = max(len(numbers) - 1, 1).bit_length()
    keys = (numbers << bits) | np.arange(len(numbers))
    keys.sort()
    return keys & ((1 << bits) - 1)
