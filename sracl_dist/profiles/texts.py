"""Item texts and training histories in the form that prompts and the text encoder take them.

Only training items are visible here: everything else in `profiles` reads histories through this class.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import BRAND, CATEGORIES, DESCRIPTION, ITEM, ITEM_ID, TITLE
from sracl_dist.errors import StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences, load_sequences


@dataclass(frozen=True, kw_only=True)
class ItemText:
    """What the user's data say about one item; empty strings where they say nothing."""

    item_id: str
    title: str
    brand: str
    categories: str
    description: str

    @property
    def name(self) -> str:
        """The title, or the id of an item without one."""
        return self.title or self.item_id

    @property
    def line(self) -> str:
        """Name, brand and categories in one line."""
        facts = "; ".join(fact for fact in (self.brand, self.categories) if fact)
        return f"{self.name} ({facts})" if facts else self.name


class TrainingTexts:
    """Item texts, each user's training items, and each item's places in training histories."""

    def __init__(self, items: list[ItemText], sequences: Sequences) -> None:
        self._items = items
        self._sequences = sequences
        self.num_items = len(items)
        self.num_users = sequences.num_users
        self._places, self._place_offsets = _places_of_items(sequences)

    def item(self, item: int) -> ItemText:
        """Text of an item, 1..V."""
        return self._items[item - 1]

    def history(self, user: int) -> list[int]:
        """The user's training items, oldest first."""
        items: list[int] = self._sequences.training(user).tolist()
        return items

    def num_training(self) -> NDArray[np.int64]:
        """[V + 1]: training interactions of every item; entry 0 (PAD) is 0."""
        return np.diff(self._place_offsets, prepend=0)

    def histories_with(self, item: int, num_histories: int, num_around: int) -> list[list[int]]:
        """Up to `num_histories` pieces of training histories, each of up to `num_around` other items near this one.

        The histories are spread evenly over the users who have the item, so they do not depend on any order of rows.
        """
        places = self._places[self._place_offsets[item - 1] : self._place_offsets[item]]
        if len(places) > num_histories:
            chosen = np.linspace(0, len(places) - 1, num_histories).round().astype(np.int64)
            places = places[np.unique(chosen)]
        pieces = []
        for place in places:
            user = int(np.searchsorted(self._sequences.offsets, place, side="right")) - 1
            history = self.history(user)
            at = int(place - self._sequences.offsets[user])
            first = max(0, min(at - num_around // 2, len(history) - num_around - 1))
            piece = [other for other in history[first : first + num_around + 1] if other != item]
            if piece:
                pieces.append(piece)
        return pieces


def load_training_texts(run: RunFolder) -> TrainingTexts:
    """Read what prepare wrote.

    Raises:
        StorageError: the items are not numbered 1..V.
    """
    folder = run.stage("prepare")
    table = folder.read_table("items.parquet", [ITEM, ITEM_ID, TITLE, BRAND, CATEGORIES, DESCRIPTION]).sort_by(ITEM)
    sequences = load_sequences(run)
    if not np.array_equal(table[ITEM].to_numpy(), np.arange(1, sequences.num_items + 1)):
        raise StorageError(f"{folder.shown('items.parquet')} does not list items 1..V; {folder.anew}.")
    return TrainingTexts(_item_texts(table), sequences)


def _item_texts(table: pa.Table) -> list[ItemText]:
    columns = {name: table[name].to_pylist() for name in (ITEM_ID, TITLE, BRAND, CATEGORIES, DESCRIPTION)}
    return [
        ItemText(
            item_id=columns[ITEM_ID][row],
            title=columns[TITLE][row] or "",
            brand=columns[BRAND][row] or "",
            categories=", ".join(columns[CATEGORIES][row] or ()),
            description=columns[DESCRIPTION][row] or "",
        )
        for row in range(table.num_rows)
    ]


def _places_of_items(sequences: Sequences) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions in `sequences.items` of every item's training interactions, and where each item's part ends.

    Item v's places are places[ends[v - 1] : ends[v]].
    """
    lengths = np.diff(sequences.offsets)
    position = np.arange(len(sequences.items)) - np.repeat(sequences.offsets[:-1], lengths)
    training = np.flatnonzero(position < np.repeat(sequences.num_train, lengths))
    items = sequences.items[training]
    places = training[np.argsort(items, kind="stable")]
    ends = np.cumsum(np.bincount(items, minlength=sequences.num_items + 1))
    return places, ends
