"""Fits what is known about an item or user into the room of a prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sracl_dist.profiles.chat import Message
from sracl_dist.profiles.conversation import Conversation
from sracl_dist.profiles.safe_text import CUT, SafeText
from sracl_dist.profiles.template import bulleted

LEAST_TOKENS = 8
"""A title or line is not cut to less."""
LEAST_DESCRIPTION = 24
"""Worked examples are left out before a description has fewer tokens."""
Line = tuple[str, int]
"""A line of a history, and its length in tokens."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a prompt could show."""

    fields: dict[str, str]
    list_name: str
    """Placeholder of the lines."""
    lines: Sequence[Line]
    """The most important first."""
    is_newest_first: bool = False
    """Whether the lines are a user's history, which is shown oldest first and never left out."""
    uncut: str = ""
    """An id that an item's title, or a user's first line, begins with; it is shown as a whole."""


class Fitting:
    """Makes one prompt fit, the least important first.

    At least the title or id of an item, or one line of a user's history, is shown. Where there is little room, the
    description is cut, then worked examples are left out, then attributes, then the only line is cut, then the title.

    Args:
        conversation: the chat around the data.
        known: what could be shown.
        text: cuts texts.
        limit: longest prompt in tokens.
    """

    def __init__(self, conversation: Conversation, known: Known, text: SafeText, limit: int) -> None:
        self._conversation, self._known, self._text, self._limit = conversation, known, text, limit
        self._fields = dict(known.fields)
        self._examples = conversation.examples_for(known.fields.get("title", ""))
        self._lines = [line for line, _ in known.lines[:1]]
        self._steps: tuple[Callable[[int], bool], ...] = (
            lambda excess: self._cut_field("description", excess, LEAST_DESCRIPTION),
            lambda _: self._leave_out_example(),
            lambda _: self._leave_out("description", "categories", "brand"),
            self._cut_line,
            lambda _: self._leave_out_line(),
            lambda excess: self._cut_field("title", excess, LEAST_TOKENS),
        )

    def messages(self) -> tuple[list[Message], list[int]] | None:
        """The chat and its tokens; None where not even the least that has to be shown fits."""
        shown = self._shown()
        while (excess := len(shown[1]) - self._limit) > 0:
            if not any(step(excess) for step in self._steps):
                return None
            shown = self._shown()
        if len(self._known.lines) > 1 and self._lines:
            self._add_lines(self._limit - len(shown[1]))
            shown = self._shown()
            while len(shown[1]) > self._limit:  # the sum of the lengths is only about the length of the whole
                self._lines.pop()
                shown = self._shown()
        return shown

    def _shown(self) -> tuple[list[Message], list[int]]:
        lines = bulleted(reversed(self._lines) if self._known.is_newest_first else self._lines)
        messages = self._conversation.messages(self._examples, {**self._fields, self._known.list_name: lines})
        return messages, self._conversation.token_ids(messages)

    def _add_lines(self, room: int) -> None:
        """All further lines that have room; one that has none makes room for older ones."""
        for line, num_tokens in self._known.lines[1:]:
            if num_tokens + 1 <= room:
                self._lines.append(line)
                room -= num_tokens + 1

    def _shorter(self, text: str, excess: int, least: int, uncut: str) -> str:
        """The text with at least `excess` tokens less; empty where too little of it would be left."""
        wanted = self._text.num_tokens(text) - excess - self._text.num_tokens(CUT)
        shorter = self._text.cut(text, max(least, wanted))
        return shorter if len(shorter) < len(text) and shorter.startswith(uncut) else ""

    def _cut_field(self, name: str, excess: int, least: int) -> bool:
        text = self._fields.get(name, "")
        shorter = self._shorter(text, excess, least, self._known.uncut if name == "title" else "")
        if shorter:
            self._fields[name] = shorter
        return bool(shorter)

    def _cut_line(self, excess: int) -> bool:
        if not self._lines:
            return False
        uncut = self._known.uncut if self._known.is_newest_first else ""
        shorter = self._shorter(self._lines[0], excess, LEAST_TOKENS, uncut)
        if shorter:
            self._lines = [shorter]
        return bool(shorter)

    def _leave_out_example(self) -> bool:
        """Leave out the last one, and use its room for the description again."""
        if not self._examples:
            return False
        self._examples, self._fields = self._examples[:-1], dict(self._known.fields)
        return True

    def _leave_out(self, *names: str) -> bool:
        for name in names:
            if self._fields.get(name):
                self._fields[name] = ""
                return True
        return False

    def _leave_out_line(self) -> bool:
        if self._known.is_newest_first or not self._lines:
            return False
        self._lines = []
        return True
