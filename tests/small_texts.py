"""Item texts and sequences for tests of profiles."""

import numpy as np

from sracl_dist.profiles.item_text import ItemText
from sracl_dist.sequences import Sequences


def item_text(item: int, **fields: str) -> ItemText:
    values = {
        "item_id": f"B{item:05d}",
        "title": f"Film number {item}",
        "brand": "Studio",
        "categories": "Drama",
        "description": "",
    }
    return ItemText(**{**values, **fields})


def sequences_of(histories: list[list[int]], num_items: int, num_held_out: int = 2) -> Sequences:
    lengths = np.array([len(history) for history in histories])
    return Sequences(
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        items=np.concatenate(histories).astype(np.int32),
        num_train=(lengths - num_held_out).astype(np.int32),
        num_validation=np.ones(len(histories), np.int32),
        num_items=num_items,
    )
