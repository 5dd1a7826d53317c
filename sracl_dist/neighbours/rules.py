"""Who may be whose neighbour: bounds on the score, and groups such as a brand.

n queries, c candidates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import BRAND, CATEGORIES, ITEM
from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.run_folder import RunFolder

NO_GROUP = -1


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a candidate must fulfil."""

    min_score: float | None = None
    max_score: float | None = None
    """Above it a candidate is a near-duplicate and is left out."""
    group_N: NDArray[np.int32] | None = None
    """Group of every row of the table; a row that has one takes neighbours from it only."""
    first_key: int = 0

    def refused(
        self, query_keys: NDArray[np.int64], keys: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Which candidates [n, c] are left out: the query itself, and what breaks a bound."""
        refused: NDArray[np.bool_] = keys == query_keys[:, None]
        if self.min_score is not None:
            refused |= scores < self.min_score
        if self.max_score is not None:
            refused |= scores > self.max_score
        return refused

    def groups_of(self, keys: NDArray[np.int64]) -> NDArray[np.int32]:
        """Group of each key; NO_GROUP where it has none, and takes neighbours from everywhere."""
        if self.group_N is None:
            return np.full(len(keys), NO_GROUP, np.int32)
        return self.group_N[keys - self.first_key]

    @property
    def floor(self) -> float:
        """Lowest score that can be a neighbour's."""
        return -np.inf if self.min_score is None else self.min_score


def load_rules(settings: NeighboursConfig, run: RunFolder, kind: str, first_key: int) -> tuple[Rules, list[str]]:
    """The configured rules, and the group of every row by name, for what must notice a change of it; empty without."""
    names: list[str] = []
    group_N = None
    if kind == "items" and settings.items_share != "nothing":
        names = _group_names(run, settings.items_share)
        numbers = {name: number for number, name in enumerate(sorted(set(names) - {""}))}
        group_N = np.array([numbers.get(name, NO_GROUP) for name in names], np.int32)
    rules = Rules(min_score=settings.min_score, max_score=settings.max_score, group_N=group_N, first_key=first_key)
    return rules, names


def _group_names(run: RunFolder, share: str) -> list[str]:
    """Brand, or last and so narrowest category, of every item in the order of ids; empty where it has none."""
    column = BRAND if share == "brand" else CATEGORIES
    table = run.stage("prepare").read_table("items.parquet", [ITEM, column]).sort_by(ITEM)
    values = table[column].to_pylist()
    if share == "brand":
        return [value or "" for value in values]
    return [value[-1] if value else "" for value in values]


def mutual_only(
    neighbours: NDArray[np.int64], scores: NDArray[np.float32], first_key: int, missing: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Keep b in the list of a where a is in that of b; the others move up."""
    num_rows, width = neighbours.shape
    own = np.repeat(np.arange(num_rows), width).reshape(neighbours.shape)
    there = neighbours != missing
    other = np.where(there, neighbours - first_key, 0)
    # A pair as one number, in both directions; what is in both lists is mutual.
    kept = there & np.isin(own * num_rows + other, (other * num_rows + own)[there])
    order = np.argsort(~kept, axis=1, kind="stable")
    kept = np.take_along_axis(kept, order, axis=1)
    moved = np.take_along_axis(neighbours, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return np.where(kept, moved[0], missing), np.where(kept, moved[1], -np.inf).astype(np.float32)
