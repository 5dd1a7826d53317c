"""Metrics of groups of users: by the length of their history, and by the popularity of their target.

U evaluated users, V catalogue.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.evaluate.ranking import Ranks
from sracl_dist.sequences import Sequences

LENGTHS = ("<7", "7-10", ">10")
"""Groups by the number of training items, with the paper's limits."""
POPULARITIES = ("head", "middle", "tail", "never in training")
"""Groups by how often the target was interacted with in training: the most popular items that make up a third of all
training interactions, those of the next third, the others, and those without a training interaction."""


def slice_metrics(
    sequences: Sequences, users_U: NDArray[np.int64], targets_U: NDArray[np.int32], ranks: Ranks
) -> dict[str, list[dict[str, Any]]]:
    """For each way of grouping a list of groups, each with its name, num_users and metrics under both protocols."""
    lengths_U = length_groups(sequences.num_train[users_U])
    popularity_U = popularity_groups(sequences.training_counts())[targets_U]
    return {
        "num_training_items": _groups(LENGTHS, lengths_U, ranks, sequences.num_items),
        "target_popularity": _groups(POPULARITIES, popularity_U, ranks, sequences.num_items),
    }


def length_groups(num_train_U: NDArray[np.int32]) -> NDArray[np.int64]:
    """Index into LENGTHS for each number of training items."""
    return np.digitize(num_train_U, [7, 11])


def popularity_groups(counts_V: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index into POPULARITIES for every item; among equally popular items the lower id counts as more popular.

    An item belongs to the third in which the interactions before it end.
    """
    order_V = np.argsort(-counts_V, kind="stable")
    sorted_V = counts_V[order_V]
    before_V = np.cumsum(sorted_V) - sorted_V
    groups_V = np.empty(len(counts_V), dtype=np.int64)
    groups_V[order_V] = np.minimum(3 * before_V // max(1, int(counts_V.sum())), 2)
    groups_V[counts_V == 0] = POPULARITIES.index("never in training")
    return groups_V


def _groups(names: tuple[str, ...], group_U: NDArray[np.int64], ranks: Ranks, num_items: int) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "num_users": int((group_U == index).sum()),
            "seen_kept": mean_metrics(ranks.seen_kept[group_U == index], num_items),
            "seen_removed": mean_metrics(ranks.seen_removed[group_U == index], num_items),
        }
        for index, name in enumerate(names)
    ]
