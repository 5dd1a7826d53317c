"""The few rows that the page shows, read without loading whole tables."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ITEM, ITEM_ID, NUM_TRAIN_INTERACTIONS, PAD, TITLE, USER, USER_ID
from sracl_dist.config import Config
from sracl_dist.ids import USERS
from sracl_dist.report.elements import TITLE_CHARS, clipped
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.sequences import Sequences, load_sequences

ITEMS_TABLE = "items.parquet"
USERS_TABLE = "users.parquet"
QUALITY_FILE = "quality.json"
CURVE_FILE = "metrics.jsonl"
METRICS_FILE = "metrics.json"
RANKS = "ranks"
RECOMMENDATIONS = "recommendations"
# Spelt here again, and held equal by a test, because the modules that write these files import torch and Ray.

_SHARD = re.compile(r"(\d+)-(\d+)\.parquet$")


class Titles:
    """Names of items, by dense id and by the user's own id; those without a title go by their id."""

    def __init__(self, run: RunFolder) -> None:
        self._folder = run.stage("prepare")
        self._by_item: dict[int, str] = {}
        self._item_of_id: dict[str, int] = {}

    def load(self, items: Iterable[int]) -> None:
        """Read the names of these items, once for many."""
        self._read(ITEM, {int(item) for item in items} - self._by_item.keys())

    def load_ids(self, item_ids: Iterable[str]) -> None:
        """The same for the user's own ids."""
        self._read(ITEM_ID, set(item_ids) - self._item_of_id.keys())

    def of(self, item: int) -> str:
        """Name of an item that was loaded."""
        return self._by_item.get(int(item), f"item {item}")

    def item_of(self, item_id: str) -> int:
        """The item with this id of the user's own, which was loaded; PAD for an id that is not in the tables."""
        return self._item_of_id.get(item_id, PAD)

    def _read(self, column: str, wanted: set[int] | set[str]) -> None:
        if not wanted:
            return
        for row in rows_where(self._folder, [ITEMS_TABLE], column, wanted, [ITEM, ITEM_ID, TITLE]):
            name = clipped(row[TITLE] or row[ITEM_ID], TITLE_CHARS) or f"item {row[ITEM]}"
            self._by_item[row[ITEM]] = name
            self._item_of_id[row[ITEM_ID]] = row[ITEM]


class UserNames:
    """The user's own ids of users."""

    def __init__(self, run: RunFolder) -> None:
        self._folder = run.stage("prepare")
        self._ids: dict[int, str] = {}

    def load(self, users: Iterable[int]) -> None:
        """Read the ids of these users, once for many."""
        wanted = {int(user) for user in users} - self._ids.keys()
        if wanted:
            names = shards_with(self._folder, f"{USERS}/", wanted)
            rows = rows_where(self._folder, names, USER, wanted, [USER, USER_ID])
            self._ids |= {row[USER]: row[USER_ID] for row in rows}

    def id_of(self, user: int) -> str | None:
        """The id of a user that was loaded, as the tables have it."""
        return self._ids.get(user)

    def of(self, user: int) -> str:
        """Name of a user that was loaded, to be shown."""
        return f"User {clipped(self._ids.get(user, f'number {user}'), TITLE_CHARS)}"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What every section reads from."""

    config: Config
    run: RunFolder
    sequences: Sequences
    titles: Titles
    users: UserNames
    item_counts: NDArray[np.int64]
    """[V + 1]: training interactions of every item; entry 0 (PAD) is 0."""

    @classmethod
    def of(cls, config: Config, run: RunFolder) -> "Source":
        """Open the tables of a finished run."""
        sequences = load_sequences(run)
        table = run.stage("prepare").read_table(ITEMS_TABLE, [ITEM, NUM_TRAIN_INTERACTIONS])
        counts = np.zeros(sequences.num_items + 1, np.int64)
        counts[table[ITEM].to_numpy()] = table[NUM_TRAIN_INTERACTIONS].to_numpy()
        return cls(
            config=config, run=run, sequences=sequences, titles=Titles(run), users=UserNames(run), item_counts=counts
        )

    def popularity(self, item: int) -> str:
        """How often the item occurs in training, in words."""
        num = int(self.item_counts[item])
        return "never seen in training" if not num else f"{num:,} training interaction{'s' if num > 1 else ''}"

    def latest(self, user: int, num: int) -> list[int]:
        """The user's latest training items, newest first."""
        items: list[int] = self.sequences.training(user)[::-1][:num].tolist()
        return items

    def history_size(self, user: int) -> str:
        """How many training items the user has, in words."""
        num = int(self.sequences.num_train[user])
        return f"{num:,} training item{'s' if num != 1 else ''}"


def rows_where(
    folder: StageFolder, names: Sequence[str], column: str, wanted: Iterable[int] | Iterable[str], columns: list[str]
) -> list[dict[str, Any]]:
    """Rows whose `column` is one of the wanted values, from tables of the same form; none where one is missing."""
    chosen = pc.field(column).isin(list(wanted))
    there = [name for name in names if folder.exists(name)]
    return [row for name in there for row in folder.read_table(name, columns, chosen).to_pylist()]


def shards_with(folder: StageFolder, kind: str, keys: Iterable[int]) -> list[str]:
    """Names of the shards that hold one of the keys, by the range in the name; the others are not even opened."""
    wanted = sorted(keys)
    names = []
    for name in folder.files(kind):
        found = _SHARD.search(name)
        if found and any(int(found[1]) <= key < int(found[2]) for key in wanted):
            names.append(name)
    return names


def spread(keys: NDArray[np.integer], counts: NDArray[np.integer], num: int) -> list[int]:
    """At most `num` keys from the highest count to the lowest at even steps; ties go to the lower key."""
    if not len(keys):
        return []
    order = keys[np.lexsort((keys, -counts.astype(np.int64)))]
    positions = np.unique(np.linspace(0, len(order) - 1, num).round().astype(int))
    chosen: list[int] = order[positions].tolist()
    return chosen
