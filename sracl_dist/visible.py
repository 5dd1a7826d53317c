"""Text made fit for a person's eyes, wherever it comes from: no outlet of the package writes without it."""

import re

from sracl_dist.secrets import masked

_INVISIBLE = "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
"""Marks that reorder or hide the text around them. Joiners, which emoji and several scripts need, are not among them,
and letters that are read from right to left are no marks."""
INVISIBLE = re.compile(f"[{_INVISIBLE}]")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_UNFIT = re.compile(f"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff{_INVISIBLE}]")


def is_utf8(text: str) -> bool:
    """Whether it can be written as UTF-8; a path whose bytes are something else cannot, in Python's form of it."""
    return _HALF_PAIR.search(text) is None


def visible(text: str, *, lines: bool = False) -> str:
    """The text without secrets, and with escapes in place of what a terminal would obey; see `escaped`."""
    return escaped(masked(text), lines=lines)


def escaped(text: str, *, lines: bool = False) -> str:
    """Control characters, line breaks and marks that reorder or hide text as Python writes them, such as `\\x1b`.

    Args:
        text: any; letters, tabs and emoji stay as they are.
        lines: whether line breaks `\\n` stay too.
    """
    return _UNFIT.sub(lambda found: found[0] if lines and found[0] == "\n" else _as_escape(found[0]), text)


def _as_escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
