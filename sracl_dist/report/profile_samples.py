"""Sample profiles: what was written, next to what it was written about."""

from typing import Any

import numpy as np

from sracl_dist.columns import ERROR, FINISH_REASON, KEY, MODEL, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, TEXT
from sracl_dist.report.elements import TITLE_CHARS, Card, Group, Line, Section, clipped, count, details_table
from sracl_dist.report.lookups import Source, rows_where, shards_with, spread
from sracl_dist.shards import committed_shards

NUM_TITLES = 6


def profiles_section(source: Source) -> Section:
    """Items and users with their profiles, and what generating them took."""
    items = _sample(source, "items", source.item_counts)
    users = _sample(source, "users", source.sequences.num_train)
    source.titles.load([*items, *(item for user in users for item in source.latest(user, NUM_TITLES))])
    source.users.load(users)
    groups = [
        Group(
            title="Items",
            notes=[] if items else ["No item has a profile; its raw text stands in for it."],
            cards=[_item_card(source, item, row) for item, row in items.items()],
        ),
        Group(
            title="Users",
            notes=[] if users else ["No user has a profile; the titles of the history stand in for it."],
            cards=[_user_card(source, user, row) for user, row in users.items()],
        ),
    ]
    manifest = source.run.stage("profile").manifest()
    if manifest and manifest.details:
        groups.append(Group(title="Generation", tables=[details_table(manifest.details)]))
    return Section(
        anchor="profiles",
        title="Sample profiles",
        introduction=f"{_origin(source)} The samples run from the most "
        "frequent profiled item to the rarest, and from the longest profiled history to the shortest.",
        groups=groups,
    )


def _origin(source: Source) -> str:
    if source.config.profile.engine == "file":
        return "These were written elsewhere and taken from files; what their authors saw is not known here."
    return "A language model wrote these from training interactions only."


def _sample(source: Source, kind: str, counts: np.ndarray) -> dict[int, dict[str, Any]]:
    """Profile rows of the sampled keys, in the order of sampling."""
    folder = source.run.stage("profile")
    shards = [shard.name for shard in committed_shards(folder, kind)]
    keys = np.concatenate([np.zeros(0, np.int64), *(folder.read_table(name, [KEY])[KEY].to_numpy() for name in shards)])
    chosen = spread(keys, counts[keys], source.config.report.num_samples)
    columns = [KEY, TEXT, FINISH_REASON, NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS, MODEL, ERROR]
    rows = {row[KEY]: row for row in rows_where(folder, shards_with(folder, f"{kind}/", chosen), KEY, chosen, columns)}
    return {key: rows[key] for key in chosen}


def _item_card(source: Source, item: int, row: dict[str, Any]) -> Card:
    return Card(title=source.titles.of(item), subtitle=source.popularity(item), text=_text(row), note=_note(row))


def _user_card(source: Source, user: int, row: dict[str, Any]) -> Card:
    titles = [Line(text=source.titles.of(item)) for item in source.latest(user, NUM_TITLES)]
    return Card(
        title=source.users.of(user),
        subtitle=source.history_size(user),
        before_title="Latest training items",
        before=titles,
        text=_text(row),
        note=_note(row),
    )


def _text(row: dict[str, Any]) -> str:
    return clipped(row[TEXT]) if row[TEXT] else ""


def _note(row: dict[str, Any]) -> str:
    if not row[TEXT]:
        return f"No profile: {clipped(row[ERROR] or 'the answer was empty', TITLE_CHARS)}."
    if row[NUM_PROMPT_TOKENS] is None:
        return f"from {clipped(row[MODEL], TITLE_CHARS)}"
    ending = ", cut at the limit" if row[FINISH_REASON] == "length" else ""
    return f"{count(row[NUM_PROMPT_TOKENS])} tokens read, {count(row[NUM_OUTPUT_TOKENS])} written{ending}"
