"""What is wrong with an answer, judged by its text alone.

An answer that is empty, an unfinished thought, a refusal, in another language, copied from a worked example or
off-format is a failure and is asked again; one that is truncated or repetitive is kept, without its loop, and counted.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sracl_dist.errors import ConfigError
from sracl_dist.profiles.chat import CONTROL_TOKENS
from sracl_dist.profiles.copies import Example, examples_of, is_copy
from sracl_dist.profiles.loops import repeated_share, without_loop
from sracl_dist.profiles.refusals import is_refusal
from sracl_dist.profiles.scripts import scripts_of, strange_script
from sracl_dist.profiles.template import TAG, Chat
from sracl_dist.profiles.thoughts import THOUGHT_MARKS, without_thought

EMPTY = "empty"
THOUGHT = "thought"
REFUSAL = "refusal"
LANGUAGE = "language"
COPY = "copy"
TRUNCATED = "truncated"
REPETITIVE = "repetitive"
OFF_FORMAT = "off-format"
FAILURES = (EMPTY, THOUGHT, REFUSAL, LANGUAGE, COPY, OFF_FORMAT)
"""Flaws of an answer that cannot be used."""
FLAWS = (*FAILURES, TRUNCATED, REPETITIVE)

MAX_REPEATED_SHARE = 0.5
LABEL = re.compile(r"^[^\W\d_][^\n:$]{0,40}:", re.MULTILINE)
"""The name of a field at the beginning of a template's line, such as `Title:`."""
ROLE = r"^(?:#{1,3} ?|\*\*)?(?:system|user|assistant|human)(?:\*\*)?[ \t]*(?::|$)"
"""A line that begins another turn; engines leave control tokens out of a text, so that only the role remains."""


@dataclass(frozen=True, kw_only=True)
class AnswerRules:
    """What the answers to some chats are held against."""

    off_format: re.Pattern[str]
    """What no answer may hold."""
    scripts: frozenset[str]
    """Those of the chats."""
    examples: tuple[Example, ...]
    starts: tuple[str, ...]
    """Words that answers begin with, the longest first."""


def answer_rules(chats: Iterable[Chat]) -> AnswerRules:
    """The rules for the answers to these chats.

    Raises:
        ConfigError: the answer of a worked example would itself be a failure.
    """
    all_chats = list(chats)
    answers = [turn.answer for chat in all_chats for turn in chat.turns]
    told = [text for chat in all_chats for text in (chat.system_message(), chat.shape())]
    rules = AnswerRules(
        off_format=_off_format([chat.shape() for chat in all_chats], answers),
        scripts=scripts_of([*(re.sub(r"\$\w+", "", text) for text in told), *answers]),
        examples=(),
        starts=tuple(sorted({chat.answer_start for chat in all_chats if chat.answer_start}, key=len, reverse=True)),
    )
    for answer in answers:
        if reason := failure_of(answer, rules):
            start = f"{answer[:60]} ..." if len(answer) > 60 else answer
            raise ConfigError(
                f"The template's worked example {start!r} would be refused as an answer ({reason}); change it."
            )
    return AnswerRules(**{**vars(rules), "examples": examples_of(map(answer_of, answers))})


def _off_format(messages: Iterable[str], answers: list[str]) -> re.Pattern[str]:
    """Marks of the messages, control tokens, another turn.

    The marks are the tags of the messages (`<data>`) anywhere, and the labels of their lines (`Title:`) where a line
    begins, unless a worked example's answer has them too. Labels count in the case in which they are written, so that
    "the title: ..." is fine.
    """
    texts = list(messages)
    tags = sorted({tag for text in texts for tag in TAG.findall(text)})
    wanted = {label for answer in answers for label in LABEL.findall(answer)}
    labels = sorted({label for text in texts for label in LABEL.findall(text)} - wanted)
    parts = [CONTROL_TOKENS.pattern, f"(?i:{THOUGHT_MARKS.pattern})", f"(?im:{ROLE})", *map(re.escape, tags)]
    if labels:
        parts.append(rf"(?m:^[\s>*-]*(?:{'|'.join(map(re.escape, labels))}))")
    return re.compile("|".join(f"(?:{part})" for part in parts))


def answer_of(text: str | None) -> str:
    """What the model answers, without the thought before it; empty where there is no answer."""
    return without_thought(text)[0] if text else ""


def profile_of(text: str | None, flaws: Sequence[str]) -> str:
    """What is kept of an answer with these flaws: a repetitive one ends where it begins to go round in circles."""
    answer = answer_of(text)
    return without_loop(answer) if REPETITIVE in flaws else answer


def failure_of(text: str | None, rules: AnswerRules) -> str | None:
    """Why the text cannot be used, or None."""
    return next(_failures(text, rules), (None, None))[1]


def flaws_of(text: str | None, finish_reason: str | None, rules: AnswerRules) -> list[str]:
    """Which of `FLAWS` the answer has, in their order."""
    flaws = [flaw for flaw, _ in _failures(text, rules)]
    if finish_reason == "length":
        flaws.append(TRUNCATED)
    if repeated_share(answer_of(text)) > MAX_REPEATED_SHARE:
        flaws.append(REPETITIVE)
    return flaws


def _failures(text: str | None, rules: AnswerRules) -> Iterator[tuple[str, str]]:
    """Each of `FAILURES` that the text has, with the reason in words."""
    answer, ends = without_thought(text or "")
    if not ends:
        yield THOUGHT, "the answer is a thought without an end"
    elif not answer:
        yield EMPTY, "the answer is empty"
    if not answer:
        return
    if is_refusal(answer, rules.starts):
        yield REFUSAL, f"the answer is a refusal: {answer[:60]!r}"
    if script := strange_script(answer, rules.scripts):
        yield LANGUAGE, f"the answer is in another language than the template: most of its words are {script}"
    if is_copy(answer, rules.examples):
        yield COPY, "the answer is that of a worked example"
    if found := rules.off_format.search(answer):
        yield OFF_FORMAT, f"the answer is off-format: it holds {found[0].strip()[:60]!r}"
