"""Whether an answer only repeats a worked example."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

COPY_SHARE = 0.9
"""Part of the words that two texts must have in common, in the same order."""
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
    """Whether the text is an example's answer, nearly so, cut before its end, or goes on behind it."""
    words = words_of(text) if examples else []
    counts = Counter(words)
    return any(_repeats(words, counts, example) for example in examples)


def _repeats(words: list[str], counts: Counter[str], example: Example) -> bool:
    if tuple(words) == example.words:
        return True
    if min(len(words), len(example.words)) < MIN_WORDS:
        return False
    most = sum(min(num, counts[word]) for word, num in example.counts.items())
    if not _is_enough(most, words, example):  # words in any order are quickly counted, and nearly always too few
        return False
    return _is_enough(_num_in_order(words, example.words), words, example)


def _is_enough(num_common: int, words: Sequence[str], example: Example) -> bool:
    of_answer, of_example = num_common / len(words), num_common / len(example.words)
    return of_example >= COPY_SHARE or (of_answer >= COPY_SHARE and of_example >= MIN_EXAMPLE_SHARE)


def _num_in_order(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    previous = [0] * (len(right) + 1)
    for word in left:
        row = [0]
        for place, other in enumerate(right):
            row.append(previous[place] + 1 if word == other else max(row[place], previous[place + 1]))
        previous = row
    return previous[-1]
