"""In which scripts a text is written, as a coarse sign of its language."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

MIN_SHARE = 0.1
"""A script with a smaller share of a text's letters is that of a name or two."""


@lru_cache(maxsize=100_000)
def _script(letter: str) -> str | None:
    """Script of a character by the first word of its Unicode name, such as LATIN or CJK; None for what is no letter."""
    if unicodedata.category(letter) not in ("Lu", "Ll", "Lt", "Lo"):
        return None
    return unicodedata.name(letter, "OTHER").split()[0]


def script_counts(text: str) -> Counter[str]:
    """Number of letters of each script."""
    if text.isascii():
        return Counter(LATIN=sum(map(str.isalpha, text)))
    scripts = map(_script, unicodedata.normalize("NFKC", text))
    return Counter(script for script in scripts if script is not None)


def scripts_of(texts: Iterable[str]) -> frozenset[str]:
    """Scripts that one of the texts is written in."""
    found = set()
    for text in texts:
        counts = script_counts(text)
        found |= {script for script, num in counts.items() if num and num >= MIN_SHARE * counts.total()}
    return frozenset(found)


def strange_script(text: str, known: frozenset[str]) -> str | None:
    """The commonest script of a text most of whose letters are in none of the known scripts, else None."""
    counts = script_counts(text)
    strange = Counter({script: num for script, num in counts.items() if script not in known})
    return strange.most_common(1)[0][0] if 2 * strange.total() > counts.total() else None
