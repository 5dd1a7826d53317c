"""Item texts and training histories in the form that prompts and the text encoder take them.

Only training items are visible here: everything else in `profiles` reads histories through this class.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sracl_dist.profiles.item_places import NO_PLACE, fill_item_places, shared_item_places
from sracl_dist.profiles.item_text import ItemText, StoredItems
from sracl_dist.run_folder import MANIFEST, RunFolder
from sracl_dist.sequences import SEQUENCES, Sequences, load_sequences


class TrainingTexts:
    """Item texts, each user's training items, and each item's places in training histories.

    Args:
        items: texts of the items 1..V in that order.
        sequences: the histories, of which only training items are shown.
        made_from: tells the histories apart from all others, where processes of this machine share places in them.
    """

    def __init__(self, items: Sequence[ItemText], sequences: Sequences, made_from: str | None = None) -> None:
        self._items, self._sequences, self._made_from = items, sequences, made_from
        self.num_items = len(items)
        self.num_users = sequences.num_users
        self._places_Vk = np.empty((0, 0), np.int64)

    def item(self, item: int) -> ItemText:
        """Text of an item, 1..V."""
        return self._items[item - 1]

    def history(self, user: int) -> list[int]:
        """The user's training items, oldest first."""
        items: list[int] = self._sequences.training(user).tolist()
        return items

    def num_training(self) -> NDArray[np.int64]:
        """[V + 1]: training interactions of every item; entry 0 (PAD) is 0."""
        return self._sequences.training_counts()

    def history_lengths(self) -> NDArray[np.int32]:
        """[U]: training items of every user."""
        return self._sequences.num_train

    def histories_with(self, item: int, num_histories: int, num_around: int) -> list[list[int]]:
        """Up to `num_histories` pieces of training histories, each of up to `num_around` other items near this one.

        The histories are spread evenly over the users who have the item, so they do not depend on any order of rows.
        """
        users, offsets = self._shown(item, num_histories)
        pieces = []
        for user, at in zip(users.tolist(), offsets.tolist(), strict=True):
            history = self._sequences.training(user)
            first = max(0, min(at - num_around // 2, len(history) - num_around - 1))
            piece = [other for other in history[first : first + num_around + 1].tolist() if other != item]
            if piece:
                pieces.append(piece)
        return pieces

    def users_shown(self, item: int, num_histories: int) -> NDArray[np.int64]:
        """The users of whom `histories_with` shows a piece for this item."""
        return self._shown(item, num_histories)[0]

    def _shown(self, item: int, num_histories: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Users whose histories are shown for an item, and where in each the item is."""
        if num_histories == 0:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        places = self._places(num_histories)[item]
        places = places[places != NO_PLACE]
        users = np.searchsorted(self._sequences.offsets, places, side="right") - 1
        return users, places - self._sequences.offsets[users]

    def _places(self, num_places: int) -> NDArray[np.int64]:
        """[V + 1, num_places]: places of every item, made when they are first asked for."""
        if self._places_Vk.shape[1] != num_places:
            if self._made_from is None:
                self._places_Vk = np.empty((self.num_items + 1, num_places), np.int64)
                fill_item_places(self._places_Vk, self._sequences)
            else:
                self._places_Vk = shared_item_places(self._sequences, num_places, self._made_from)
        return self._places_Vk


def load_training_texts(run: RunFolder) -> TrainingTexts:
    """Read what prepare wrote; processes of one machine share it.

    Raises:
        StorageError: the items are not numbered 1..V.
    """
    folder, sequences = run.stage("prepare"), load_sequences(run)
    items = StoredItems(folder, sequences.num_items)
    return TrainingTexts(items, sequences, folder.signature([MANIFEST, f"{SEQUENCES}/"]))
