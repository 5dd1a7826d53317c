"""What is wrong with an answer, told from its text alone.

An answer that is empty or off-format is a failure and is asked again; one that is truncated or repetitive is kept and
counted.
"""

import re
from collections import Counter
from collections.abc import Iterable

from sracl_dist.profiles.chat import CONTROL_TOKENS

EMPTY = "empty"
TRUNCATED = "truncated"
REPETITIVE = "repetitive"
OFF_FORMAT = "off-format"
FLAWS = (EMPTY, TRUNCATED, REPETITIVE, OFF_FORMAT)

PHRASE_WORDS = 3
MAX_REPEATED_SHARE = 0.5
LABEL = re.compile(r"^[^\W\d_][^\n:$]{0,40}:", re.MULTILINE)
"""The name of a field at the beginning of a template's line, such as `Title:`."""
TAG = re.compile(r"</?\w+>")
ROLE = r"^(?:#{1,3} ?|\*\*)?(?:system|user|assistant|human)(?:\*\*)?[ \t]*(?::|$)"
"""A line that begins another turn; engines leave control tokens out of a text, so that only the role remains."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""Chinese and Japanese have no spaces: there every character counts as a word."""


def off_format_pattern(messages: Iterable[str]) -> re.Pattern[str]:
    """What no answer may hold when templates with these messages ask: their marks, control tokens, another turn.

    The marks are the tags of the messages (`<data>`) anywhere, and the labels of their lines (`Title:`) where a line
    begins. Labels count in the case in which they are written, so that "the title: ..." is fine.
    """
    texts = list(messages)
    tags = sorted({tag for text in texts for tag in TAG.findall(text)})
    labels = sorted({label for text in texts for label in LABEL.findall(text)})
    parts = [CONTROL_TOKENS.pattern, f"(?im:{ROLE})", *map(re.escape, tags)]
    if labels:
        parts.append(rf"(?m:^[\s>*-]*(?:{'|'.join(map(re.escape, labels))}))")
    return re.compile("|".join(f"(?:{part})" for part in parts))


def failure_of(text: str | None, off_format: re.Pattern[str]) -> str | None:
    """Why the text cannot be used, or None."""
    if not text or not text.strip():
        return "the answer is empty"
    found = off_format.search(text)
    return f"the answer is off-format: it holds {found[0].strip()[:60]!r}" if found else None


def flaws_of(text: str | None, finish_reason: str | None, off_format: re.Pattern[str]) -> list[str]:
    """Which of `FLAWS` the answer has, in their order."""
    is_empty = not text or not text.strip()
    has = {
        EMPTY: is_empty,
        TRUNCATED: finish_reason == "length",
        REPETITIVE: repeated_share(text or "") > MAX_REPEATED_SHARE,
        OFF_FORMAT: not is_empty and off_format.search(text or "") is not None,
    }
    return [flaw for flaw in FLAWS if has[flaw]]


def repeated_share(text: str) -> float:
    """Share of the words that lie in a phrase of three words which occurs more than once.

    Words are compared without case and punctuation: in "a must-watch, a must-watch" all six lie in "a must watch", so
    the share is 1. Phrases may overlap, so a loop of one or two words counts as well, from the fourth word on. Fluent
    texts repeat few of their phrases; more than half of the words means that the model went round in circles.
    """
    words = _WORD.findall(text.lower())
    phrases = list(zip(*(words[start:] for start in range(PHRASE_WORDS)), strict=False))
    counts = Counter(phrases)
    num_repeated = end = 0
    for start, phrase in enumerate(phrases):
        if counts[phrase] > 1:
            num_repeated += start + PHRASE_WORDS - max(start, end)
            end = start + PHRASE_WORDS
    return num_repeated / len(words) if words else 0.0
