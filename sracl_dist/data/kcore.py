"""Iterative k-core: only users and items with enough interactions among each other stay."""

from collections.abc import Iterable
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


@dataclass(frozen=True, kw_only=True)
class Core:
    """What the k-core kept: the interactions of these users with these items."""

    user_counts: list[NDArray[np.int32]]
    """For each part the interactions that each of its users keeps; 0 where it is removed."""
    item_counts: NDArray[np.int32]
    """[items] interactions that each item keeps; 0 where it is removed."""
    rounds: list[dict[str, int]]
    """Users, items and interactions before any removal and after each round."""


def k_core(
    parts: Iterable[tuple[NDArray[np.int32], NDArray[np.int32]]],
    num_items: int,
    min_user_interactions: int,
    min_item_interactions: int,
) -> Core:
    """Remove interactions of users and items with too few, again and again until none is left to remove.

    The result is the largest subset in which everybody has enough, whatever the order of removal. Each interaction
    takes 8 bytes while it is left, and a round looks only at those that are.

    Args:
        parts: of the users, part after part: how many interactions each user has, and the items of all of them, user
            after user. Whoever holds on to the items takes 4 bytes more for each interaction.
        num_items: items are 0..num_items - 1.
        min_user_interactions: fewest interactions of a user.
        min_item_interactions: fewest interactions of an item.

    Raises:
        InputError: nothing stays.
    """
    item_counts = np.zeros(num_items, np.int32)
    counts, left = [], []
    for lengths, items in parts:
        counts.append(lengths.astype(np.int32))
        left.append((np.repeat(np.arange(len(lengths), dtype=np.int32), lengths), items))
        item_counts += np.bincount(items, minlength=num_items).astype(np.int32)
    rounds = [_round(counts, item_counts)]
    while any(_lacks(own, min_user_interactions) for own in counts) or _lacks(item_counts, min_item_interactions):
        item_stays = item_counts >= min_item_interactions
        for place, (users, items) in enumerate(left):
            stays = (counts[place] >= min_user_interactions)[users] & item_stays[items]
            if stays.all():
                continue
            gone = ~stays
            counts[place] -= np.bincount(users[gone], minlength=len(counts[place])).astype(np.int32)
            item_counts -= np.bincount(items[gone], minlength=num_items).astype(np.int32)
            left[place] = (users[stays], items[stays])
        rounds.append(_round(counts, item_counts))
    if not rounds[-1].interactions:
        raise InputError(
            f"No interaction is left out of {rounds[0].interactions:,} with data.min_user_interactions="
            f"{min_user_interactions} and data.min_item_interactions={min_item_interactions}; lower them."
        )
    return Core(user_counts=counts, item_counts=item_counts, rounds=[asdict(each) for each in rounds])


def _lacks(counts: NDArray[np.int32], least: int) -> bool:
    """Whether somebody who is left has too few."""
    return bool(((counts > 0) & (counts < least)).any())


def _round(user_counts: list[NDArray[np.int32]], item_counts: NDArray[np.int32]) -> Round:
    return Round(
        users=sum(int(np.count_nonzero(own)) for own in user_counts),
        items=int(np.count_nonzero(item_counts)),
        interactions=int(item_counts.sum(dtype=np.int64)),
    )
