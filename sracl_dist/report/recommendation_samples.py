"""Sample recommendations: the history that the model saw, and what it offers next."""

from typing import Any

import numpy as np

from sracl_dist.columns import ITEM_IDS, RANK_SEEN_KEPT, RANK_SEEN_REMOVED, SCORES, TARGET, USER, USER_ID
from sracl_dist.report.elements import Card, Group, Line, Section, count
from sracl_dist.report.lookups import RANKS, RECOMMENDATIONS, Source, rows_where, shards_with, spread

NUM_TITLES = 8
NUM_RECOMMENDED = 10
HELD_OUT = "test item"


def recommendations_section(source: Source) -> Section:
    """Histories beside recommendations, and where the held-out item stood."""
    users = _sample(source)
    source.users.load(users)
    user_ids = {user: user_id for user in users if (user_id := source.users.id_of(user)) is not None}
    lists = _lists(source, user_ids)
    folder = source.run.stage("evaluate")
    columns = [USER, TARGET, RANK_SEEN_KEPT, RANK_SEEN_REMOVED]
    ranks = rows_where(folder, shards_with(folder, RANKS, users), USER, users, columns)
    targets = {row[USER]: row for row in ranks}
    source.titles.load([*(item for user in users for item in _latest(source, user)), *(row[TARGET] for row in ranks)])
    cards = [
        _card(source, user, lists[user_id], targets.get(user)) for user, user_id in user_ids.items() if user_id in lists
    ]
    removed = "Items of the history are left out. " if source.config.recommend.remove_seen else ""
    return Section(
        anchor="recommendations",
        title="Sample recommendations",
        introduction="Recommendations follow the whole history, the held-out test item included. "
        f"{removed}The rank of the test item is the one that evaluation gave it when it was still unseen. "
        "The samples run from the longest history to the shortest.",
        groups=[Group(cards=cards, notes=[] if cards else ["There are no recommendations to show."])],
    )


def _sample(source: Source) -> list[int]:
    """Users with a test item first of all; without any, users with a history."""
    users, _ = source.sequences.targets("test")
    if not len(users):
        users = np.flatnonzero(np.diff(source.sequences.offsets))
    lengths = np.diff(source.sequences.offsets)[users]
    return spread(users, lengths, source.config.report.num_samples)


def _lists(source: Source, user_ids: dict[int, str]) -> dict[str, dict[str, Any]]:
    folder = source.run.stage("recommend")
    names = shards_with(folder, RECOMMENDATIONS, user_ids)
    rows = rows_where(folder, names, USER_ID, user_ids.values(), [USER_ID, ITEM_IDS, SCORES])
    source.titles.load_ids(item_id for row in rows for item_id in row[ITEM_IDS][:NUM_RECOMMENDED])
    return {row[USER_ID]: row for row in rows}


def _latest(source: Source, user: int) -> list[int]:
    items: list[int] = source.sequences.whole(user)[::-1][:NUM_TITLES].tolist()
    return items


def _card(source: Source, user: int, row: dict[str, Any], ranked: dict[str, Any] | None) -> Card:
    target = ranked[TARGET] if ranked else None
    recommended = [source.titles.item_of(item_id) for item_id in row[ITEM_IDS][:NUM_RECOMMENDED]]
    num = len(source.sequences.whole(user))
    return Card(
        title=source.users.of(user),
        subtitle=f"{num:,} items",
        before_title="Latest items",
        before=[_line(source, item, target) for item in _latest(source, user)],
        lines_title="Recommended",
        lines=[
            _line(source, item, target, f"{score:.2f}") for item, score in zip(recommended, row[SCORES], strict=False)
        ],
        note=_rank_note(source, ranked),
    )


def _line(source: Source, item: int, target: int | None, score: str = "") -> Line:
    return Line(text=source.titles.of(item), aside=score, mark=HELD_OUT if item == target else "")


def _rank_note(source: Source, ranked: dict[str, Any] | None) -> str:
    if ranked is None:
        return "This user has no test item."
    num_items = source.sequences.num_items
    kept, removed = ranked[RANK_SEEN_KEPT], ranked[RANK_SEEN_REMOVED]
    without = f"{count(removed)} without seen ones" if removed <= num_items else "no candidate without seen ones"
    title = source.titles.of(ranked[TARGET])
    return f"Test item {title}: rank {count(kept)} of {count(num_items)} items, {without}."
