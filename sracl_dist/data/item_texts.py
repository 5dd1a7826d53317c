"""What is known about every item of the catalogue: title, brand, categories and description, as plain text."""

import functools
import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import CATEGORIES, ITEM_ID, REASON, ROW, TEXT_COLUMNS, VALUE
from sracl_dist.config.sections import FileFormat, ItemColumns
from sracl_dist.data.by_id import why_unusable
from sracl_dist.data.files import DataFile
from sracl_dist.data.readers import read_rows
from sracl_dist.data.rejects import NO_INTERACTIONS, REPEATED_ITEM, Rejects
from sracl_dist.data.rows import Reading, Rows
from sracl_dist.errors import InputError, StageError
from sracl_dist.observe import Progress, say

_TEXT = pa.large_string()
"""The texts of a column may have more than 2 GiB together, which is all that Arrow's other type of strings can hold."""
_PLACE, _WHY = "place", "why"
_SCHEMA = pa.schema({name: pa.list_(_TEXT) if name == CATEGORIES else _TEXT for name in TEXT_COLUMNS})
_EXPECTED_SHARE = 0.5
"""Of the items; where fewer have a row in the texts, ids are likely to be spelled in two ways."""
_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<![^<>]*>")
_BLOCK = re.compile(r"<!--.*?(-->|\Z)|<(script|style)\b.*?(?=(</)\2|\Z)", re.DOTALL | re.IGNORECASE)
_NEEDS_CLEANING = r"[<&]|[^\x20-\x7e]|  |^ | $"
_SPACES = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")
"""A space for each control character."""
_ROUNDS = 8
_RAW_CHARS_PER_CHAR = 16
"""Far more markup than text is left to others; the bound keeps the work per row small."""


@dataclass(frozen=True, kw_only=True)
class ItemTexts:
    """Texts of the catalogue's items."""

    table: pa.Table
    """[V] title, brand, categories, description in the order of the catalogue; null where nothing is known."""
    num_read: int
    """Rows read from the files."""
    is_found: NDArray[np.bool_]
    """[V] whether the item has a row."""

    def counts(self) -> dict[str, int]:
        """How many items lack each column, and how many lack all of them."""
        lacks = pl.DataFrame(self.table).select(pl.all().is_null())
        counts = {f"items_without_{name}": int(lacks[name].sum()) for name in TEXT_COLUMNS}
        return counts | {"items_without_text": int(lacks.select(pl.all_horizontal(pl.all())).to_series().sum())}


def read_item_texts(
    files: Sequence[DataFile],
    columns: ItemColumns,
    item_ids: pa.Array,
    rejects: Rejects,
    *,
    text_format: FileFormat | None = None,
    flags: tuple[str, ...] = (),
    separator: str = "|",
    max_chars: int = 2000,
) -> ItemTexts:
    """Read the texts of the items with these ids; an item without a row has null in every column.

    Broken rows, rows of other items and second rows of an item go to `rejects`.

    Raises:
        InputError: a file is missing or damaged or lacks a column.
        StageError: rows were lost.
    """
    item_ids = item_ids.cast(pa.string())
    wanted = {name: getattr(columns, name) for name in (ITEM_ID, *TEXT_COLUMNS)}
    wanted = {name: column for name, column in wanted.items() if column is not None}
    text_format = text_format or FileFormat()
    is_found = np.zeros(len(item_ids), dtype=np.bool_)
    parts = [_SCHEMA.append(pa.field(_PLACE, pa.int64())).empty_table()]
    progress = Progress("prepare: reading item texts", sum(file.size for file in files) // 1000, "kB")
    for file in files:
        start = progress.done
        reading = Reading(
            file=file,
            wanted=wanted,
            setting="data.item_columns.{}",
            format_setting="data.item_format",
            rejects=rejects,
            format=text_format,
            flags=flags,
            separator=separator,
        )
        for rows in read_rows(reading):
            judged = _judged(rows, item_ids, is_found)
            for (reason,), bad in judged.drop_nulls(_WHY).group_by(_WHY, maintain_order=True):
                rejects.add(file.source, bad[ROW].to_numpy(), str(reason), bad[ITEM_ID].to_arrow())
            is_usable = judged[_WHY].is_null()
            places = judged.filter(is_usable)[_PLACE].to_numpy()
            is_found[places] = True
            kept = {name: values.filter(is_usable.to_arrow()) for name, values in rows.columns.items()}
            parts.append(_cleaned(kept, separator, max_chars).append_column(_PLACE, pa.array(places, pa.int64())))
            progress.update(start + reading.num_bytes // 1000 - progress.done, rejected=len(rejects))
    if files:
        progress.close()
    found = pa.concat_tables(parts, promote_options="default")
    if rejects.num_read != len(found) + len(rejects):
        raise StageError(
            f"{rejects.num_read:,} rows of item texts were read but {len(found) + len(rejects):,} are accounted for; "
            f"report this as a bug."
        )
    row_of_item = np.full(len(item_ids), -1, dtype=np.int64)
    row_of_item[found[_PLACE]] = np.arange(len(found))
    table = found.select(TEXT_COLUMNS).take(pa.array(row_of_item, mask=row_of_item < 0)).combine_chunks()
    return ItemTexts(table=table, num_read=rejects.num_read, is_found=is_found)


def _judged(rows: Rows, item_ids: pa.Array, is_found: NDArray[np.bool_]) -> pl.DataFrame:
    """ITEM_ID, ROW, place of the item in the catalogue, and why the row cannot be used or null, of each row.

    Of the rows of an item only the first one can be used, if it has not been found before.
    """
    place = pl.Series(_PLACE, pc.index_in(rows.columns[ITEM_ID], item_ids), dtype=pl.Int64)
    unusable = why_unusable(rows, ITEM_ID, place, NO_INTERACTIONS).alias(_WHY)
    frame = pl.DataFrame([pl.Series(ITEM_ID, rows.columns[ITEM_ID]), pl.Series(ROW, rows.numbers), place, unusable])
    place = frame.select(pl.when(pl.col(_WHY).is_null()).then(_PLACE)).to_series()
    is_repeated = pl.Series(is_found).gather(place) | ~place.is_first_distinct()
    why = pl.when(place.is_not_null() & is_repeated).then(pl.lit(REPEATED_ITEM)).otherwise(_WHY)
    return frame.select(ITEM_ID, ROW, _PLACE, why.alias(_WHY))


def require_items(texts: ItemTexts, item_ids: pa.Array, rejects: Rejects) -> None:
    """Say so where most items have no row although there are rows of other items.

    Raises:
        InputError: no item has a row.
    """
    num_items, num_found = len(texts.is_found), int(texts.is_found.sum())
    if num_found >= _EXPECTED_SHARE * num_items or not rejects.counts[NO_INTERACTIONS]:
        return
    lacking_id = item_ids[int(np.argmin(texts.is_found))].as_py()
    unknown_id = rejects.table().filter(pc.field(REASON) == NO_INTERACTIONS)[VALUE][0].as_py()
    ids = f"the log has {lacking_id!r}, the texts have {unknown_id!r}"
    advice = f"check that both spell ids alike, for example leading zeros, and data.item_columns.{ITEM_ID}"
    if not num_found:
        raise InputError(f"Not one item of the log has a row in the item texts: {ids}; {advice}.")
    say(f"only {num_found:,} of {num_items:,} items have a row in the item texts: {ids}; {advice}")


def _cleaned(columns: dict[str, pa.Array], separator: str, max_chars: int) -> pa.Table:
    """The columns of TEXT_COLUMNS among these, cleaned."""
    cleaned = {}
    for name in TEXT_COLUMNS:
        values = columns.get(name)
        if values is not None and name == CATEGORIES:
            lists = pc.split_pattern(values, separator) if pa.types.is_string(values.type) else values
            lists = [clean_categories(value, max_chars) for value in lists.to_pylist()]
            cleaned[name] = pa.array(lists, _SCHEMA.field(name).type)
        elif values is not None:
            cleaned[name] = clean_texts(values, max_chars)
    return pa.table(cleaned)


def clean_texts(values: pa.Array, max_chars: int) -> pa.Array:
    """Clean every text; most need none and never leave Arrow. A null stays null and an empty text becomes null.

    Returns:
        large_string, whatever the texts are.
    """
    values = values.cast(_TEXT)
    dirty = pc.match_substring_regex(values, _NEEDS_CLEANING).fill_null(False)
    cleaned = [clean_text(text, max_chars) for text in values.filter(dirty).to_pylist()]
    values = pc.replace_with_mask(values, dirty, pa.array(cleaned, _TEXT))
    values = pc.utf8_rtrim(pc.utf8_slice_codeunits(values, 0, max_chars), " ")
    return pc.if_else(pc.equal(values, ""), None, values)


def clean_text(text: str, max_chars: int) -> str:
    """Plain text on one line: no HTML tags or entities, no control characters, NFC, at most `max_chars` characters.

    Entities that hide tags are followed to the end, so cleaning a clean text changes nothing.

    >>> clean_text("<b>Tea&nbsp;&amp; cake</b>\\n for two", 80)
    'Tea & cake for two'
    """
    text = text[: max_chars * _RAW_CHARS_PER_CHAR]
    for _ in range(_ROUNDS):
        plain = html.unescape(_TAG.sub(" ", _BLOCK.sub(_without_block, text)) if "<" in text else text)
        cleaned = unicodedata.normalize("NFC", " ".join(plain.translate(_SPACES).split()))
        if cleaned == text:
            break
        text = cleaned
    return text[:max_chars].rstrip()


def _without_block(block: re.Match[str]) -> str:
    # The end tag of a script or style is a tag like any other. What is not closed stays.
    return " " if block[1] or block[3] else block[0]


_clean_category = functools.lru_cache(maxsize=1 << 16)(clean_text)


def clean_categories(values: list[str] | None, max_chars: int) -> list[str] | None:
    """Cleaned categories in order, each once; null where none is left."""
    cleaned = (_clean_category(value, max_chars) for value in values or () if value)
    return list(dict.fromkeys(value for value in cleaned if value)) or None
