"""Texts of items, of which the processes of a machine share one copy."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.columns import BRAND, CATEGORIES, DESCRIPTION, ITEM, ITEM_ID, TITLE
from sracl_dist.errors import StorageError
from sracl_dist.ids import ITEMS_TABLE
from sracl_dist.run_folder import MANIFEST, StageFolder
from sracl_dist.shared_arrays import Room, shared_arrays

NAMES = (ITEM_ID, TITLE, BRAND, CATEGORIES)


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


class StoredItems(Sequence[ItemText]):
    """Texts of the items 1..V, at the places 0..V-1; descriptions are read when one is asked for.

    Raises:
        StorageError: the items are not numbered 1..V, or the machine has no room for the copy.
    """

    def __init__(self, folder: StageFolder, num_items: int) -> None:
        self._folder, self._num_items = folder, num_items
        self._columns = self._shared("item-names", NAMES)

    def __len__(self) -> int:
        return self._num_items

    @overload
    def __getitem__(self, index: int) -> ItemText: ...
    @overload
    def __getitem__(self, index: slice) -> list[ItemText]: ...
    def __getitem__(self, index: int | slice) -> ItemText | list[ItemText]:
        places = range(self._num_items)
        if isinstance(index, slice):
            return [_StoredText(self, place) for place in places[index]]
        return _StoredText(self, places[index])

    def text(self, column: str, place: int) -> str:
        """One text; empty where there is none."""
        text: str = (self._descriptions if column == DESCRIPTION else self._columns)[column][place].as_py()
        return text

    @cached_property
    def _descriptions(self) -> dict[str, pa.LargeStringArray]:
        return self._shared("item-descriptions", (DESCRIPTION,))

    def _shared(self, name: str, columns: Sequence[str]) -> dict[str, pa.LargeStringArray]:
        made_from = self._folder.signature([MANIFEST, ITEMS_TABLE])
        arrays = shared_arrays(name, made_from, lambda room: self._fill(room, columns))
        return {
            column: pa.LargeStringArray.from_buffers(
                self._num_items, pa.py_buffer(arrays[f"{column} offsets"]), pa.py_buffer(arrays[column])
            )
            for column in columns
        }

    def _fill(self, room: Room, columns: Iterable[str]) -> None:
        items = self._folder.read_table(ITEMS_TABLE, [ITEM])[ITEM].to_numpy()
        order = np.argsort(items, kind="stable")
        if not np.array_equal(items[order], np.arange(1, self._num_items + 1)):
            raise StorageError(f"{self._folder.shown(ITEMS_TABLE)} does not list items 1..V; {self._folder.anew}.")
        for column in columns:
            texts = _texts(self._folder.read_table(ITEMS_TABLE, [column])[column])
            if not np.array_equal(order, np.arange(len(order))):
                texts = texts.take(order)
            _fill_column(room, column, texts)


class _StoredText(ItemText):
    """An item's text whose description is read only where it is wanted."""

    def __init__(self, items: StoredItems, place: int) -> None:
        names = {column: items.text(column, place) for column in NAMES}
        self.__dict__.update(names, _items=items, _place=place)

    @cached_property
    def description(self) -> str:
        return self._items.text(DESCRIPTION, self._place)

    _items: StoredItems
    _place: int


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Large texts; those of a list are joined by commas."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pc.binary_join(column, pa.scalar(", ", column.type.value_type))
    return pc.fill_null(column.cast(pa.large_string()), "")


def _fill_column(room: Room, column: str, texts: pa.ChunkedArray) -> None:
    offsets = room.add(f"{column} offsets", np.int64, (len(texts) + 1,))
    content = room.add(column, np.uint8, (pc.sum(pc.binary_length(texts)).as_py() or 0,))
    row = 0
    for chunk in texts.chunks:
        own = np.frombuffer(chunk.buffers()[1], np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        start, end = offsets[row], offsets[row] + own[-1] - own[0]
        offsets[row : row + len(chunk) + 1] = own - own[0] + start
        if end > start:
            content[start:end] = np.frombuffer(chunk.buffers()[2], np.uint8)[own[0] : own[-1]]
        row += len(chunk)
