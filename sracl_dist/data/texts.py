"""Cleaning of item texts: what a shop's database holds becomes one line of plain text."""

import functools
import html
import re
import unicodedata

import pyarrow as pa
import pyarrow.compute as pc

_TAG = re.compile(r"</?[A-Za-z][^<>]*>|<![^<>]*>")
_BLOCK = re.compile(r"<!--|<script\b|<style\b", re.IGNORECASE)
_BLOCK_ENDS = {"<!--": "-->", "<script": "</script", "<style": "</style"}
_NEEDS_CLEANING = r"[<&]|[^\x20-\x7e]|  |^ | $"
_ROUNDS = 8
# Far more markup than text is left to others; the bound keeps the work per row small.
_RAW_CHARS_PER_CHAR = 16


def clean_texts(values: pa.Array, max_chars: int) -> pa.Array:
    """Clean every text; most need none and never leave Arrow. A null stays null and an empty text becomes null.

    Returns:
        large_string, whatever the texts are.
    """
    values = values.cast(pa.large_string())
    dirty = pc.match_substring_regex(values, _NEEDS_CLEANING).fill_null(False)
    cleaned = [clean_text(text, max_chars) for text in values.filter(dirty).to_pylist()]
    values = pc.replace_with_mask(values, dirty, pa.array(cleaned, pa.large_string()))
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
        cleaned = unicodedata.normalize("NFC", _one_line(html.unescape(_without_tags(text))))
        if cleaned == text:
            break
        text = cleaned
    return text[:max_chars].rstrip()


def clean_categories(values: list[str] | None, max_chars: int) -> list[str] | None:
    """Cleaned categories in order, each once; null where none is left."""
    if values is None:
        return None
    cleaned = (_clean_category(value, max_chars) for value in values if value)
    return list(dict.fromkeys(value for value in cleaned if value)) or None


@functools.lru_cache(maxsize=1 << 16)
def _clean_category(value: str, max_chars: int) -> str:
    return clean_text(value, max_chars)


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    return _TAG.sub(" ", _without_blocks(text))


def _without_blocks(text: str) -> str:
    """Leave out comments, scripts and styles with their content."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a few letters become two, which would shift the positions
        lowered = text
    parts, start = [], 0
    while found := _BLOCK.search(text, start):
        mark = _BLOCK_ENDS[found.group().lower()]
        end = lowered.find(mark, found.end())
        if end < 0:
            break
        parts += [text[start : found.start()], " "]
        # The end tag of a script or style is a tag like any other and goes with them.
        start = end + len(mark) if mark == "-->" else end
    return "".join([*parts, text[start:]])


def _one_line(text: str) -> str:
    visible = "".join(character if unicodedata.category(character) != "Cc" else " " for character in text)
    return " ".join(visible.split())
