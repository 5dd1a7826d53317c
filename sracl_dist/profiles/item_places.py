"""Where every item lies in training histories: a few places of each, spread evenly over the users who have it."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from sracl_dist.histories import Histories
from sracl_dist.sequences import Sequences
from sracl_dist.shared_arrays import Room, shared_arrays

EVENTS_PER_PIECE = 1 << 20
"""Events that are gone through at a time; they take some 100 bytes each meanwhile."""
NO_PLACE = -1


def shared_item_places(sequences: Sequences, num_places: int, made_from: str) -> NDArray[np.int64]:
    """The table of `fill_item_places` in one copy for all processes of this machine, 8 bytes for each entry.

    Args:
        sequences: the histories.
        num_places: k, at least 1.
        made_from: tells apart all histories.
    """
    shape = (sequences.num_items + 1, num_places)

    def make(room: Room) -> None:
        fill_item_places(room.add("places", np.int64, shape), sequences)

    return shared_arrays("item-places", f"{made_from} {num_places}", make)["places"]


def fill_item_places(places_Vk: NDArray[np.int64], sequences: Sequences) -> None:
    """Set row v to the places of item v in `sequences.items`, ascending, the rest to `NO_PLACE`.

    An item that occurs more often than k times in training has those at k even steps from its first place to its last,
    in the order of users and of time. Every event is looked at once.
    """
    places_Vk[:] = NO_PLACE
    counts_V = sequences.training_counts()
    num_seen_V = np.zeros_like(counts_V)
    for places, items in _pieces(sequences):
        order = np.argsort(items, kind="stable")
        places, items = places[order], items[order]
        in_piece_V = np.bincount(items, minlength=len(counts_V))
        first = np.cumsum(in_piece_V) - in_piece_V
        numbers = num_seen_V[items] + np.arange(len(items)) - first[items]
        num_seen_V += in_piece_V
        slots = _slots(numbers, counts_V[items], places_Vk.shape[1])
        chosen = slots != NO_PLACE
        places_Vk[items[chosen], slots[chosen]] = places[chosen]


def _slots(numbers: NDArray[np.int64], counts: NDArray[np.int64], num_places: int) -> NDArray[np.int64]:
    """Which entry of its item's row the place with each number gets, of so many that the item has; or `NO_PLACE`."""
    last = num_places - 1
    # As in np.linspace(0, counts - 1, num_places).
    steps = (counts - 1) / max(last, 1)
    near = np.rint(numbers / np.maximum(steps, 1.0)).astype(np.int64)
    slots = np.where(counts <= num_places, numbers, NO_PLACE)
    for slot in (near - 1, near, near + 1):
        wanted = np.where(slot == last, counts - 1, np.rint(slot * steps).astype(np.int64)) if last else 0
        hits = (counts > num_places) & (slot >= 0) & (slot <= last) & (wanted == numbers)
        slots = np.where(hits, slot, slots)
    return slots


def _pieces(sequences: Sequences) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    """Places and items of all training events, some users at a time."""
    first = 0
    while first < sequences.num_users:
        end = np.searchsorted(sequences.offsets, sequences.offsets[first] + EVENTS_PER_PIECE, side="right") - 1
        users = slice(first, max(first + 1, min(int(end), sequences.num_users)))
        lengths = sequences.num_train[users]
        items = Histories.gather(sequences.items, sequences.offsets[users], lengths).items_T
        starts = np.cumsum(lengths, dtype=np.int64) - lengths
        yield np.arange(len(items)) + np.repeat(sequences.offsets[users] - starts, lengths), items
        first = users.stop
