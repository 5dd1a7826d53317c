"""Answers that go round in circles, as small models write them."""

import re
from collections import Counter

from sracl_dist.profiles.copies import words_of

PHRASE_WORDS = 3
MAX_LOOP_WORDS = 20
LOOP = re.compile(
    rf"\b(\w+(?:\W+\w+)??)(?:\W+\1\b){{2}}"
    rf"|\b(\w+(?:\W+\w+){{{PHRASE_WORDS - 1},{MAX_LOOP_WORDS - 1}}}?)\W+\2\b",
    re.IGNORECASE,
)
"""One or two words three times in a row, or a longer phrase twice."""


def repeated_share(text: str) -> float:
    """Share of the words that lie in a phrase of three words which occurs more than once.

    Words are compared without case and punctuation: in "a must-watch, a must-watch" all six lie in "a must watch", so
    the share is 1. Phrases may overlap, so a loop of one or two words counts as well, from the fourth word on. Fluent
    texts repeat few of their phrases; more than half of the words means that the model went round in circles.
    """
    words = words_of(text)
    phrases = list(zip(*(words[start:] for start in range(PHRASE_WORDS)), strict=False))
    counts = Counter(phrases)
    num_repeated = end = 0
    for start, phrase in enumerate(phrases):
        if counts[phrase] > 1:
            num_repeated += start + PHRASE_WORDS - max(start, end)
            end = start + PHRASE_WORDS
    return num_repeated / len(words) if words else 0.0


def without_loop(text: str) -> str:
    """The text up to the end of the first phrase that is then repeated again and again.

    >>> without_loop("A poignant, touching, touching, touching, touching")
    'A poignant, touching'
    >>> without_loop("A drama about a family, about a family, about a")
    'A drama about a family'
    """
    found = LOOP.search(text)
    return text if found is None else text[: found.end(found.lastindex or 0)]
