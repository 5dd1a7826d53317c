"""What prepare does with a log, row by row, in plain Python: the oracle of its tests.

A row is a dict of its cells (`user`, `item`, `time`, `event`, `rating`; None is no value) and of its `damage`: what is
wrong with the row in the file and cannot be told by a cell, as a reason of `rejects`, else None.
"""

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sracl_dist.data import rejects

Row = dict[str, str | None]
Event = tuple[str, str, Fraction]
"""user id, item id, time."""
PlainRow = tuple[str, str, Any]
"""user id, item id, time as it stands in the file."""

KEPT, OTHER_EVENT, LOW_RATING, OVER_LIMIT = "kept", "another kind of event", "rating too low", "over the limit"
_NO_TIME = {"", "nan", "nat", "null", "none", r"\n"}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_DATE = re.compile(
    r"(\d{4})[-/](\d\d)[-/](\d\d)([T ](\d\d)(:(\d\d)(:(\d\d)([.,](\d+))?)?)?( UTC| GMT| ?Z| ?([+-])(\d\d):?(\d\d)?)?)?",
    re.ASCII,
)
_EPOCH = datetime.datetime(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What becomes of the rows of a log."""

    outcomes: list[str]
    """Of each row: KEPT, why it is left out, or the reason to reject it."""
    events: list[Event]
    """Of the kept rows, in their order."""

    def sequences(self) -> dict[str, list[tuple[str, Fraction]]]:
        """Each user's items and times in order, users by their first kept row."""
        found: dict[str, list[tuple[str, Fraction]]] = {user: [] for user, _, _ in self.events}
        for user, item, time in sorted(self.events, key=lambda event: event[2]):
            found[user].append((item, time))
        return found


def judge(
    rows: Sequence[Row], *, events: Sequence[str] = (), min_rating: float | None = None, limit: int | None = None
) -> Judged:
    """What becomes of each row of a log whose first batch holds all of them.

    Args:
        rows: the rows, with such damage only as their format can have.
        events: kinds of event that count; none takes all.
        min_rating: lowest rating that counts; None takes all.
        limit: of each user so many latest different events count, of those at the same time the last ones in the file.
    """
    dates = has_dates(rows)
    outcomes = [_outcome(row, dates, events, min_rating) for row in rows]
    kept: dict[Event, int] = {}
    for place, outcome in enumerate(outcomes):
        if outcome == KEPT and kept.setdefault(_event(rows[place]), place) != place:
            outcomes[place] = rejects.DUPLICATE
    own: dict[str | None, list[Event]] = {}
    for event in sorted(kept, key=lambda event: event[2]):
        own.setdefault(event[0], []).append(event)
    for found in own.values():
        for event in found[: -limit if limit else 0]:
            outcomes[kept.pop(event)] = OVER_LIMIT
    return Judged(outcomes=outcomes, events=list(kept))


def has_dates(rows: Iterable[Row]) -> bool:
    """Whether most of the times that can be read are dates."""
    kinds = [exact_time(row["time"] or "") for row in rows if row["damage"] in (None, rejects.INVALID_UTF8)]
    is_date = [found[0] for found in kinds if found is not None]
    return sum(is_date) * 2 > len(is_date)


def exact_time(text: str) -> tuple[bool, Fraction] | None:
    """Whether it is a date, and the number or the seconds since 1970, cut after 9 digits; None is no time."""
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 19:  # the same, and much faster
        return False, Fraction(int(text))
    if _NUMBER.fullmatch(text):
        number = Fraction(text)
        return (False, _cut(number)) if abs(number) < 2**63 else None
    parts = _DATE.fullmatch(text)
    if parts is None:
        return None
    year, month, day, hour, minute, second = (int(parts[at] or 0) for at in (1, 2, 3, 5, 7, 9))
    ahead_hours, ahead_minutes = int(parts[14] or 0), int(parts[15] or 0)
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second) - _EPOCH
        datetime.time(ahead_hours, ahead_minutes)
    except ValueError:
        return None
    ahead = (ahead_hours * 3600 + ahead_minutes * 60) * (-1 if parts[13] == "-" else 1)
    return True, _cut(moment.days * 86_400 + moment.seconds - ahead + Fraction("." + (parts[11] or "0")))


def _cut(time: Fraction) -> Fraction:
    return Fraction(math.floor(time * 10**9), 10**9)


def _outcome(row: Row, dates: bool, events: Sequence[str], min_rating: float | None) -> str:
    damage = row["damage"]
    if damage not in (None, rejects.INVALID_UTF8):
        return str(damage)
    if events and row["event"] not in events:
        return OTHER_EVENT
    if damage is not None:
        return damage
    for cell, reason in (("user", rejects.EMPTY_USER), ("item", rejects.EMPTY_ITEM)):
        if not (row[cell] or "").strip():
            return reason
    if reason := _reason_of_time(row["time"] or "", dates):
        return reason
    if min_rating is None:
        return KEPT
    try:
        rating = float(row["rating"] or "nan")
    except ValueError:
        return rejects.WRONG_RATING
    if math.isnan(rating):
        return rejects.WRONG_RATING
    return LOW_RATING if rating < min_rating else KEPT


def _reason_of_time(text: str, dates: bool) -> str | None:
    if text.strip().lower() in _NO_TIME:
        return rejects.MISSING_TIME
    found = exact_time(text)
    if found is None:
        return rejects.WRONG_TIME
    if found[0] != dates:
        return rejects.MIXED_TIME
    return rejects.NEGATIVE_TIME if found[1] < 0 else None


def _event(row: Row) -> Event:
    found = exact_time(row["time"] or "")
    assert found is not None
    return row["user"] or "", row["item"] or "", found[1]


def usable_events(rows: list[PlainRow], limit: int | None = None) -> tuple[list[Event], Counter[str]]:
    """The events of usable rows in their order, and how many rows were left out, by reason."""
    rest = {"event": None, "rating": None, "damage": None}
    judged = judge([{"user": user, "item": item, "time": str(time), **rest} for user, item, time in rows], limit=limit)
    reasons = Counter(judged.outcomes)
    del reasons[KEPT]
    return judged.events, reasons


def core(events: list[Event], min_user: int, min_item: int) -> list[Event]:
    """The k-core, in the order of the events."""
    while True:
        users, items = Counter(event[0] for event in events), Counter(event[1] for event in events)
        left = [event for event in events if users[event[0]] >= min_user and items[event[1]] >= min_item]
        if left == events:
            return left
        events = left


def histories(
    rows: list[PlainRow], min_user: int, min_item: int, limit: int | None = None
) -> dict[str, list[tuple[str, Fraction]]]:
    """Each user's (item id, time) in order, users by first appearance in the rows."""
    events = core(usable_events(rows, limit)[0], min_user, min_item)
    usable = dict.fromkeys(user for user, _, _ in usable_events(rows)[0])
    order = {user: place for place, user in enumerate(usable)}
    users = sorted({event[0] for event in events}, key=order.__getitem__)
    found: dict[str, list[tuple[str, Fraction]]] = {user: [] for user in users}
    for user, item, time in sorted(events, key=lambda event: event[2]):
        found[user].append((item, time))
    return found


def item_numbers(rows: list[PlainRow], min_user: int, min_item: int, limit: int | None = None) -> list[str]:
    """The items that stay, by first appearance among the usable rows."""
    stays = {event[1] for event in core(usable_events(rows, limit)[0], min_user, min_item)}
    return [item for item in dict.fromkeys(item for _, item, _ in usable_events(rows)[0]) if item in stays]
