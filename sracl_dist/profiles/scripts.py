"""In which scripts a text is written, as a coarse sign of its language."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

from sracl_dist.profiles.copies import words_of

MIN_SHARE = 0.1
"""A script with a smaller share of a text's words is that of a name or two."""
CLEAR_MAJORITY = 0.7
"""A text is in another language where a larger share of its words is; a foreign title in a sentence is less."""
CJK = "CJK"
GROUPS = {"HIRAGANA": CJK, "KATAKANA": CJK, "KATAKANA-HIRAGANA": CJK}
"""Japanese mixes its two scripts with Chinese characters."""


@lru_cache(maxsize=100_000)
def _script(letter: str) -> str | None:
    """Script of a character by the first word of its Unicode name, such as LATIN or CJK; None for what is no letter."""
    if unicodedata.category(letter) not in ("Lu", "Ll", "Lt", "Lo"):
        return None
    name = unicodedata.name(letter, "OTHER").split()[0]
    return GROUPS.get(name, name)


def script_counts(text: str) -> Counter[str]:
    """Number of words of each script, by their first letters; every Chinese or Japanese character counts as a word."""
    words = words_of(unicodedata.normalize("NFKC", text))
    scripts = (next(filter(None, map(_script, word)), None) for word in words)
    return Counter(script for script in scripts if script is not None)


def scripts_of(texts: Iterable[str]) -> frozenset[str]:
    """Scripts that one of the texts is written in."""
    found = set()
    for text in texts:
        counts = script_counts(text)
        found |= {script for script, num in counts.items() if num >= MIN_SHARE * counts.total()}
    return frozenset(found)


def strange_script(text: str, known: frozenset[str]) -> str | None:
    """The commonest script of a text of which a clear majority of words is in none of the known scripts, else None."""
    counts = script_counts(text)
    strange = Counter({script: num for script, num in counts.items() if script not in known})
    return strange.most_common(1)[0][0] if strange.total() > CLEAR_MAJORITY * counts.total() else None
