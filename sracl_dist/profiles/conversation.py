"""The messages of a prompt and their tokens: constant text and worked examples first, the question last."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import SetupError, first_line
from sracl_dist.observe import say
from sracl_dist.profiles.chat import EstimatedTokens, Message
from sracl_dist.profiles.copies import words_of
from sracl_dist.profiles.template import Chat, Turn
from sracl_dist.profiles.thoughts import opened_thought

EXAMPLES_SHARE = 0.75
"""Largest part of a prompt that the text may take which is the same for all, worked examples included."""
PROBE = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
BAD_TEMPLATE = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)
"""What a chat template raises that does not take the messages or the options."""
YEAR = re.compile(r"\s*[(\[]\d{4}[)\]]\s*$")
"""The year that many titles end with, such as (1979)."""
ARTICLES = frozenset(["the", "a", "an", "le", "la", "les", "il", "lo", "el", "los", "las", "der", "das"])


class ChatTokens:
    """How a tokenizer writes a chat, with the options of `profile.chat_options`.

    Raises:
        SetupError: the chat template cannot be used, with or without a system message.
    """

    def __init__(self, tokenizer: Any, config: ProfileConfig) -> None:
        self._tokenizer, self._options, self._model = tokenizer, config.options_of_chat(), config.model
        self.takes_system = True
        """Whether a chat may have a system message; some models know none."""
        self.opened_thought = ""
        """The mark that a prompt ends with where the model's answer begins within a thought."""
        if isinstance(tokenizer, EstimatedTokens) or tokenizer.chat_template is None:
            return
        try:
            text = self._text(PROBE)
        except BAD_TEMPLATE:
            text = ""
        if not all(message["content"] in text for message in PROBE):  # refused, or left out without a word
            self.takes_system = False
            try:
                text = self._text(PROBE[1:])
            except BAD_TEMPLATE as error:
                raise self._cannot_be_used(first_line(error)) from None
            if PROBE[1]["content"] not in text:
                raise self._cannot_be_used("it leaves out what the user says")
        self.opened_thought = opened_thought(text)

    def token_ids(self, messages: Sequence[Message], answer_start: str) -> list[int]:
        """Token ids of the whole chat up to where the model continues, behind the answer's first words.

        Raises:
            SetupError: the chat template does not take these messages.
        """
        started = self._plain(answer_start, add_special_tokens=False) if answer_start else []
        if self._tokenizer.chat_template is None:
            return [*self._plain("\n\n".join(message["content"] for message in messages) + "\n"), *started]
        try:
            asked = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False, **self._options
            )
        except BAD_TEMPLATE as error:
            turns = f"a chat of {len(messages)} messages: " if len(messages) > len(PROBE) else ""
            raise self._cannot_be_used(f"{turns}{first_line(error)}") from None
        return [*asked, *started]

    def _cannot_be_used(self, reason: str) -> SetupError:
        return SetupError(
            f"The chat template of {self._model} cannot be used ({reason}); fix profile.chat_options, or set "
            f"profile.model to another one."
        )

    def _plain(self, text: str, **settings: Any) -> list[int]:
        token_ids: list[int] = self._tokenizer(text, **settings)["input_ids"]
        return token_ids

    def _text(self, messages: Sequence[Message]) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **self._options
        )
        return text


class Conversation:
    """The prompts of one kind (items or users): the same beginning, and a question each."""

    def __init__(self, kind: str, chat: Chat, tokens: ChatTokens, max_tokens: int) -> None:
        self._chat, self._tokens = chat, tokens
        self._started = "" if tokens.opened_thought else chat.answer_start
        self.answer_start = tokens.opened_thought or chat.answer_start
        """Last words of the prompt, which belong to the answer."""
        self._turns = chat.turns
        while self._turns and len(self.token_ids(self.messages(self._turns, {}))) > EXAMPLES_SHARE * max_tokens:
            self._turns = self._turns[:-1]
        if len(self._turns) < len(chat.turns):
            say(
                f"profile: prompts about {kind} show {len(self._turns)} of {len(chat.turns)} worked examples, which is "
                f"what {EXAMPLES_SHARE:.0%} of profile.max_prompt_tokens={max_tokens} has room for"
            )

    def examples_for(self, title: str) -> tuple[Turn, ...]:
        """The worked examples for a question about an item with this title: those about others."""
        own = _bare_title(title)
        return tuple(turn for turn in self._turns if not own or _bare_title(turn.fields.get("title", "")) != own)

    def messages(self, examples: Sequence[Turn], fields: Mapping[str, str]) -> list[Message]:
        """The whole chat."""
        messages: list[Message] = []
        for turn in examples:
            messages.append({"role": "user", "content": self._chat.question(turn.fields)})
            messages.append({"role": "assistant", "content": turn.answer})
        messages.append({"role": "user", "content": self._chat.question(fields)})
        system = self._chat.system_message()
        if not system:
            return messages
        if self._tokens.takes_system:
            return [{"role": "system", "content": system}, *messages]
        return [{"role": "user", "content": f"{system}\n\n{messages[0]['content']}"}, *messages[1:]]

    def token_ids(self, messages: Sequence[Message]) -> list[int]:
        """Tokens of the chat up to where the model continues."""
        return self._tokens.token_ids(messages, self._started)


def _bare_title(title: str) -> list[str]:
    """Words of a title without case, the year at its end, and an article at its beginning or end (", The")."""
    words = words_of(YEAR.sub("", title))
    if len(words) > 1 and words[0] in ARTICLES:
        return words[1:]
    return words[:-1] if len(words) > 1 and words[-1] in ARTICLES else words
