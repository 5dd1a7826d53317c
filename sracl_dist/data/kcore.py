"""Iterative k-core: only users and items with enough interactions among each other stay."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from sracl_dist.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Round:
    """What is left after a round; round 0 is before any removal."""

    users: int
    items: int
    interactions: int


def k_core(
    users: NDArray[np.int32], items: NDArray[np.int32], min_user_interactions: int, min_item_interactions: int
) -> tuple[NDArray[np.int64], list[dict[str, int]]]:
    """Remove rows of users and items with too few, again and again until none is left to remove.

    The result is the largest subset in which everybody has enough, whatever the order of removal.

    Args:
        users: [E] user of each interaction, small integers.
        items: [E] item of each interaction, small integers.
        min_user_interactions: fewest interactions of a user.
        min_item_interactions: fewest interactions of an item.

    Returns:
        Indices of the rows that stay, ascending, and a report per round with users, items and interactions.

    Raises:
        InputError: nothing stays.
    """
    kept = np.arange(len(users), dtype=np.int64)
    rounds: list[Round] = []
    while True:
        user_counts, item_counts = np.bincount(users), np.bincount(items)
        num_users, num_items = np.count_nonzero(user_counts), np.count_nonzero(item_counts)
        rounds.append(Round(users=int(num_users), items=int(num_items), interactions=len(users)))
        stays = (user_counts[users] >= min_user_interactions) & (item_counts[items] >= min_item_interactions)
        if stays.all():
            break
        kept, users, items = kept[stays], users[stays], items[stays]
    if not len(kept):
        raise InputError(
            f"No interaction is left out of {rounds[0].interactions:,} with data.min_user_interactions="
            f"{min_user_interactions} and data.min_item_interactions={min_item_interactions}; lower them."
        )
    return kept, [asdict(each) for each in rounds]
