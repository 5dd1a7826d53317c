"""Texts of the log as a prompt may show them: without control tokens, and cut to a number of tokens."""

import re
from collections.abc import Iterable
from typing import Any

from sracl_dist.profiles.chat import CONTROL_TOKENS, EstimatedTokens
from sracl_dist.profiles.template import TAG, Chat
from sracl_dist.profiles.thoughts import THOUGHT_MARKS

HALF_WORD = re.compile(r"[^\s\u3040-\u30ff\u3400-\u9fff]+$")
"""What stands before a cut that goes through a word; Chinese and Japanese may be cut between any two characters."""
LONGEST_WORD = 40
"""Characters; a longer run without a space is cut inside, as in scripts that write no spaces."""
CUT = " ..."


class SafeText:
    """Makes texts safe and cuts them, measured by a tokenizer.

    Args:
        tokenizer: the model's, or `EstimatedTokens`.
        chats: the templates, whose tags (such as <data>) data must not be able to write.
    """

    def __init__(self, tokenizer: Any, chats: Iterable[Chat]) -> None:
        self._tokenizer = tokenizer
        self._special = _control_tokens(tokenizer, chats)

    def safe(self, text: str) -> str:
        """Without control tokens and marks."""
        return self._special.sub(" ", text)

    def num_tokens(self, text: str) -> int:
        """Length of a text alone."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def cut(self, text: str, max_tokens: int) -> str:
        """Safe, and cut at a word to at most `max_tokens` tokens and the dots behind them.

        Only ASCII has at most one token per character: a Chinese character may be three.
        """
        text = self.safe(text)
        if text.isascii() and len(text) <= max_tokens:
            return text
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= max_tokens:
            return text
        end = encoded["offset_mapping"][max_tokens - 1][1] if max_tokens > 0 else 0
        cut = text[:end]
        half = HALF_WORD.search(cut)
        if half and half.start() > 0 and end - half.start() <= LONGEST_WORD and HALF_WORD.match(text[end : end + 1]):
            cut = cut[: half.start()]
        return cut.rstrip().removesuffix(CUT) + CUT


def _control_tokens(tokenizer: Any, chats: Iterable[Chat]) -> re.Pattern[str]:
    """Everything that data must not be able to write: added tokens of the tokenizer, marks of thoughts and of data."""
    if isinstance(tokenizer, EstimatedTokens):
        tokens = [CONTROL_TOKENS.pattern]
    else:
        added = (token.content for token in tokenizer.added_tokens_decoder.values())
        longest_first = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        tokens = [re.escape(token) for token in longest_first if token.strip()]
    tags = {re.escape(tag) for chat in chats for tag in TAG.findall(chat.message)}
    return re.compile("|".join([*tokens, f"(?i:{THOUGHT_MARKS.pattern})", *sorted(tags)]))
