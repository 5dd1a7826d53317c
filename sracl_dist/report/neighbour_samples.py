"""Sample neighbours: whether what is near by meaning is near to a person's eye."""

from typing import Any

import numpy as np

from sracl_dist.columns import KEY, MISSING, NEIGHBOURS, SCORES
from sracl_dist.report.elements import Card, Column, Group, Line, Section, Table, count, metric
from sracl_dist.report.lookups import ITEMS_TABLE, QUALITY_FILE, USERS_TABLE, Source, rows_where, spread

NUM_SIMILAR_ITEMS = 5
NUM_SIMILAR_USERS = 3
NUM_TITLES = 6

Near = list[tuple[int, float]]


def neighbours_section(source: Source) -> Section:
    """Items and users with their nearest others, and the recall of the search."""
    num, num_train = source.config.report.num_samples, source.sequences.num_train
    items = spread(np.arange(1, source.sequences.num_items + 1), source.item_counts[1:], num)
    users = spread(np.flatnonzero(num_train), num_train[num_train > 0], num)
    near_items = _near(source, ITEMS_TABLE, items, NUM_SIMILAR_ITEMS)
    near_users = _near(source, USERS_TABLE, users, NUM_SIMILAR_USERS)
    _load_names(source, near_items, near_users)
    groups = [
        Group(
            title="Items",
            notes=[] if near_items else ["There is no table of similar items."],
            cards=[_item_card(source, item, near) for item, near in near_items.items()],
        ),
        Group(
            title="Users",
            notes=[] if near_users else ["There is no table of similar users."],
            cards=[_user_card(source, user, near) for user, near in near_users.items()],
        ),
        _quality(source),
    ]
    return Section(
        anchor="neighbours",
        title="Sample neighbours",
        introduction="The nearest others by the cosine of their text vectors, beside each title or history. "
        "The samples run from the most frequent item to the rarest, and from the longest history to the shortest.",
        groups=groups,
    )


def _near(source: Source, table: str, keys: list[int], num: int) -> dict[int, Near]:
    rows = rows_where(source.run.stage("neighbours"), [table], KEY, keys, [KEY, NEIGHBOURS, SCORES])
    near = {row[KEY]: list(zip(row[NEIGHBOURS], row[SCORES], strict=True)) for row in rows}
    return {key: [pair for pair in near[key] if pair[0] != MISSING][:num] for key in keys if key in near}


def _load_names(source: Source, near_items: dict[int, Near], near_users: dict[int, Near]) -> None:
    items = {*near_items, *(other for near in near_items.values() for other, _ in near)}
    users = {*near_users, *(other for near in near_users.values() for other, _ in near)}
    source.users.load(users)
    source.titles.load(items | {item for user in users for item in source.latest(user, NUM_TITLES)})


def _item_card(source: Source, item: int, near: Near) -> Card:
    lines = [Line(text=source.titles.of(other), aside=f"{score:.3f}") for other, score in near]
    note = "" if near else "It has no neighbour."
    return Card(title=source.titles.of(item), subtitle=source.popularity(item), lines=lines, note=note)


def _user_card(source: Source, user: int, near: Near) -> Card:
    return Card(
        title=source.users.of(user),
        subtitle=source.history_size(user),
        before_title="Latest training items",
        before=[Line(text=source.titles.of(item)) for item in source.latest(user, NUM_TITLES)],
        lines_title="Similar users",
        lines=[_similar_user(source, user, other, score) for other, score in near],
        note="" if near else "It has no neighbour.",
    )


def _similar_user(source: Source, user: int, other: int, score: float) -> Line:
    shared = np.intersect1d(source.sequences.training(user), source.sequences.training(other))
    titles = "; ".join(source.titles.of(item) for item in source.latest(other, NUM_TITLES))
    size = f"{source.history_size(other)}, {len(shared):,} in common"
    return Line(text=f"{source.users.of(other)} ({size})", aside=f"{score:.3f}", detail=titles)


def _quality(source: Source) -> Group:
    folder = source.run.stage("neighbours")
    title = "Search quality"
    if not folder.exists(QUALITY_FILE):
        return Group(title=title, notes=["The recall of the search was not measured."])
    quality: dict[str, dict[str, Any]] = folder.read_json(QUALITY_FILE)
    columns = [Column(title="table"), Column(title="recall", numeric=True), Column(title="rows checked", numeric=True)]
    rows = [[kind, metric(each.get("recall")), count(each.get("num_sampled"))] for kind, each in quality.items()]
    notes = ["How many of the true nearest, found by exact search for a sample of rows, are in the tables."]
    return Group(title=title, notes=notes, tables=[Table(columns=columns, rows=rows)])
