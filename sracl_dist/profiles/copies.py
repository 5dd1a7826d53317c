"""Whether an answer only repeats a worked example."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

COPY_SHARE = 0.9
"""Part of the words of each of two texts that they must have in common, in the same order."""
MIN_WORDS = 8
"""Shorter texts must be equal: a few words in common mean nothing."""
MIN_EXAMPLE_SHARE = 0.5
"""An answer may be cut, but one that has less of an example is a short answer of its own."""
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""Chinese and Japanese have no spaces: there every character counts as a word."""


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation."""
    return WORD.findall(text.lower())


@dataclass(frozen=True)
class Example:
    """The words of a worked example's answer, with their numbers."""

    words: tuple[str, ...]
    counts: Counter[str] = field(compare=False)


def examples_of(answers: Iterable[str]) -> tuple[Example, ...]:
    """The answers, ready to be compared."""
    return tuple(Example(tuple(words), Counter(words)) for words in map(words_of, answers))


def is_copy(text: str, examples: Sequence[Example]) -> bool:
    """Whether the text is an example's answer, nearly so, cut before its end or continued after it."""
    words = words_of(text) if examples else []
    counts = Counter(words)
    return any(_repeats(words, counts, example) for example in examples)


def _repeats(words: list[str], counts: Counter[str], example: Example) -> bool:
    if tuple(words) == example.words:
        return True
    num_both = min(len(words), len(example.words))
    if num_both < MIN_WORDS:
        return False
    # Words in any order are quickly counted, and nearly always too few.
    if sum(min(num, counts[word]) for word, num in example.counts.items()) < COPY_SHARE * num_both:
        return False
    if _are_alike(words, example.words):
        return True
    # One of them ends earlier: what the other says until there counts, so that words scattered over it do not.
    return num_both >= MIN_EXAMPLE_SHARE * len(example.words) and _are_alike(words[:num_both], example.words[:num_both])


def _are_alike(left: Sequence[str], right: Sequence[str]) -> bool:
    return _num_in_order(left, right) >= COPY_SHARE * max(len(left), len(right))


def _num_in_order(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    previous = [0] * (len(right) + 1)
    for word in left:
        row = [0]
        for place, other in enumerate(right):
            row.append(previous[place] + 1 if word == other else max(row[place], previous[place + 1]))
        previous = row
    return previous[-1]
