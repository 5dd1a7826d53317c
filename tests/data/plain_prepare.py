"""What prepare does, in a few plain loops: the oracle of its tests."""

from collections import Counter
from typing import Any

Row = tuple[str, str, Any]
"""user id, item id, time as it stands in the file."""


def usable_events(rows: list[Row], max_user_interactions: int | None = None) -> tuple[list[Row], Counter[str]]:
    """The different events of usable rows in their order, and how many rows were left out, by reason."""
    reasons: Counter[str] = Counter()
    events: list[Row] = []
    for user, item, time in rows:
        if not user.strip():
            reasons["empty user id"] += 1
        elif not item.strip():
            reasons["empty item id"] += 1
        elif not str(time).isdigit():
            reasons["time is neither a number nor an ISO date-time"] += 1
        else:
            events.append((user, item, int(time)))
    if max_user_interactions is not None:
        events = _latest(events, max_user_interactions, reasons)
    seen: set[Row] = set()
    kept = []
    for event in events:
        if event in seen:
            reasons["duplicate of an earlier row"] += 1
        else:
            kept.append(event)
        seen.add(event)
    return kept, reasons


def _latest(events: list[Row], limit: int, reasons: Counter[str]) -> list[Row]:
    number = {item: place for place, item in enumerate(dict.fromkeys(item for _, item, _ in events))}
    own: dict[str, set[tuple[int, int, str]]] = {}
    for user, item, time in events:
        own.setdefault(user, set()).add((time, number[item], item))
    stays = {(user, item, time) for user, found in own.items() for time, _, item in sorted(found)[-limit:]}
    reasons["over the limit"] = sum(event not in stays for event in events)
    return [event for event in events if event in stays]


def core(events: list[Row], min_user: int, min_item: int) -> list[Row]:
    """The k-core, in the order of the events."""
    while True:
        users, items = Counter(event[0] for event in events), Counter(event[1] for event in events)
        left = [event for event in events if users[event[0]] >= min_user and items[event[1]] >= min_item]
        if left == events:
            return left
        events = left


def histories(
    rows: list[Row], min_user: int, min_item: int, limit: int | None = None
) -> dict[str, list[tuple[str, int]]]:
    """Each user's (item id, time) in order, users by first appearance in the rows."""
    events = core(usable_events(rows, limit)[0], min_user, min_item)
    usable = dict.fromkeys(user for user, _, _ in usable_events(rows)[0])
    order = {user: place for place, user in enumerate(usable)}
    users = sorted({event[0] for event in events}, key=order.__getitem__)
    found: dict[str, list[tuple[str, int]]] = {user: [] for user in users}
    for user, item, time in sorted(events, key=lambda event: event[2]):
        found[user].append((item, time))
    return found


def item_numbers(rows: list[Row], min_user: int, min_item: int, limit: int | None = None) -> list[str]:
    """The items that stay, by first appearance among the usable rows."""
    stays = {event[1] for event in core(usable_events(rows, limit)[0], min_user, min_item)}
    return [item for item in dict.fromkeys(item for _, item, _ in usable_events(rows)[0]) if item in stays]
