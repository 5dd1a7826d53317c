"""What is known about every item of the catalogue: title, brand, categories and description, cleaned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import CATEGORIES, ITEM_ID, TEXT_COLUMNS
from sracl_dist.config.sections import ItemColumns
from sracl_dist.data.interactions import as_mask, empty_ids, invalid_utf8
from sracl_dist.data.readers import read_files
from sracl_dist.data.rejects import BROKEN_ID, EMPTY_ITEM, INVALID_UTF8, NO_INTERACTIONS, REPEATED_ITEM, Rejects
from sracl_dist.data.rows import Rows
from sracl_dist.data.texts import clean_categories, clean_texts
from sracl_dist.errors import StageError

_TEXT = pa.large_string()
"""The texts of a column may have more than 2 GiB together, which is all that Arrow's other type of strings can hold."""
_TYPES = {name: pa.list_(_TEXT) if name == CATEGORIES else _TEXT for name in TEXT_COLUMNS}


@dataclass(frozen=True, kw_only=True)
class ItemTexts:
    """Texts of the catalogue's items."""

    table: pa.Table
    """[V] title, brand, categories, description in the order of the catalogue; null where nothing is known."""
    num_read: int
    """Rows read from the files."""

    def counts(self) -> dict[str, int]:
        """How many items lack each column, and how many lack all of them."""
        missing = {name: int(self.table[name].null_count) for name in TEXT_COLUMNS}
        nothing = np.ones(self.table.num_rows, dtype=np.bool_)
        for name in TEXT_COLUMNS:
            nothing &= as_mask(self.table[name].is_null())
        return {
            **{f"items_without_{name}": num for name, num in missing.items()},
            "items_without_text": int(nothing.sum()),
        }


def read_item_texts(
    paths: Sequence[Path],
    columns: ItemColumns,
    item_ids: pa.Array,
    rejects: Rejects,
    *,
    separator: str = "|",
    max_chars: int = 2000,
    setting: str = "data.item_columns",
) -> ItemTexts:
    """Read the texts of the items with these ids; an item without a row has null in every column.

    Broken rows, rows of other items and second rows of an item go to `rejects`.

    Raises:
        InputError: a file is missing or damaged or lacks a column.
        StageError: rows were lost.
    """
    wanted = {ITEM_ID: columns.item_id}
    for name in TEXT_COLUMNS:
        column = getattr(columns, name)
        if column is not None:
            wanted[name] = column
    collected = _Collected(item_ids, separator, max_chars)
    if paths:
        for reading, rows in read_files(paths, wanted, setting, rejects, "prepare: reading item texts", separator):
            collected.add(rows, reading.source, rejects)
    texts = ItemTexts(table=collected.table(), num_read=rejects.num_read)
    if texts.num_read != collected.num_kept + len(rejects):
        raise StageError(
            f"{texts.num_read:,} rows of item texts were read but {collected.num_kept + len(rejects):,} are "
            f"accounted for; report this as a bug."
        )
    return texts


class _Collected:
    """Texts found so far, and which item each belongs to."""

    def __init__(self, item_ids: pa.Array, separator: str, max_chars: int) -> None:
        self._item_ids = item_ids.cast(pa.string())
        self._separator, self._max_chars = separator, max_chars
        self._row_of_item = np.full(len(item_ids), -1, dtype=np.int64)
        self._parts: list[pa.Table] = []
        self.num_kept = 0

    def add(self, rows: Rows, source: str, rejects: Rejects) -> None:
        """Keep the first row of every item of the catalogue."""
        ids = rows.columns[ITEM_ID]
        bad = np.zeros(len(rows), dtype=np.bool_)

        def reject(reason: str, mask: NDArray[np.bool_]) -> None:
            fresh = mask & ~bad
            if fresh.any():
                rejects.add(source, rows.numbers[fresh], reason, ids.filter(pa.array(fresh)))
                bad[fresh] = True

        for values in rows.columns.values():
            reject(INVALID_UTF8, _invalid(values))
        reject(EMPTY_ITEM, empty_ids(ids))
        reject(BROKEN_ID, as_mask(pc.match_substring(ids, "\n")))
        positions = pc.index_in(ids, self._item_ids).fill_null(-1).to_numpy()
        reject(NO_INTERACTIONS, positions < 0)
        reject(REPEATED_ITEM, self._repeated(positions, ~bad))
        keep = np.flatnonzero(~bad)
        self._row_of_item[positions[keep]] = self.num_kept + np.arange(len(keep))
        self.num_kept += len(keep)
        self._parts.append(self._cleaned(rows, pa.array(keep)))

    def _repeated(self, positions: NDArray[np.int32], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Usable rows of an item that has a text already, from before or from a row above."""
        candidates = np.flatnonzero(usable)
        fresh = candidates[self._row_of_item[positions[candidates]] < 0]
        _, first = np.unique(positions[fresh], return_index=True)
        repeated = usable.copy()
        repeated[fresh[first]] = False
        return repeated

    def _cleaned(self, rows: Rows, keep: pa.Array) -> pa.Table:
        columns = {}
        for name in TEXT_COLUMNS:
            if name not in rows.columns:
                columns[name] = pa.nulls(len(keep), _TYPES[name])
            elif name == CATEGORIES:
                columns[name] = self._cleaned_categories(rows.columns[name].take(keep))
            else:
                columns[name] = clean_texts(rows.columns[name].take(keep), self._max_chars)
        return pa.table(columns)

    def _cleaned_categories(self, values: pa.Array) -> pa.Array:
        if pa.types.is_string(values.type):
            values = pc.split_pattern(values, self._separator)
        lists = [clean_categories(value, self._max_chars) for value in values.to_pylist()]
        return pa.array(lists, _TYPES[CATEGORIES])

    def table(self) -> pa.Table:
        """One row per item of the catalogue."""
        schema = pa.schema(list(_TYPES.items()))
        found = pa.concat_tables([schema.empty_table(), *self._parts])
        rows = pa.array(self._row_of_item, mask=self._row_of_item < 0)
        return found.take(rows).combine_chunks()


def _invalid(values: pa.Array) -> NDArray[np.bool_]:
    if pa.types.is_string(values.type):
        return invalid_utf8(values)
    flat = pc.list_flatten(values)
    bad = np.zeros(len(values), dtype=np.bool_)
    bad[pc.list_parent_indices(values).to_numpy()[invalid_utf8(flat)]] = True
    return bad
