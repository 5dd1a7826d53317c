"""Prompts as in the paper: an item by its attributes and histories that contain it, a user by its ordered history.

They are chats (see template.py and conversation.py). Long titles and descriptions end at a word, histories lose whole
items, and an id is never cut (see fitting.py).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import ConfigError
from sracl_dist.profiles.chat import Message, request_fields
from sracl_dist.profiles.conversation import ChatTokens, Conversation
from sracl_dist.profiles.fitting import Fitting, Known, Line
from sracl_dist.profiles.item_text import ItemText
from sracl_dist.profiles.safe_text import SafeText
from sracl_dist.profiles.template import bulleted, load_chats
from sracl_dist.profiles.texts import TrainingTexts

TITLE_SHARE = 0.25
"""Largest part of the prompt that one title, brand or category text may take."""
DESCRIPTION_SHARE = 0.4
"""Largest part of the prompt that the description may take."""
CACHED_LINES = 100_000
"""Items whose lines a writer keeps, some 35 MB: popular ones are in many histories, and to count tokens is slow."""


@dataclass(frozen=True)
class Prompt:
    """One question to the language model."""

    kind: str
    """`items` or `users`."""
    key: int
    """Dense id of the item or user."""
    token_ids: list[int]
    """Empty where an endpoint is asked, which takes `messages`."""
    prompt_hash: str
    """Hash of prompt, model and sampling: equal hashes have equal answers."""
    answer_start: str = ""
    """The last words of the prompt, which belong to the answer."""
    messages: tuple[Message, ...] = ()
    num_estimated_tokens: int = 0
    """Length of the messages, about."""
    attempt: int = 1
    """1 for the first time that it is asked, one more after each failure."""
    num_failures: int = 0
    """How many earlier attempts a model has seen and failed; outages are none."""
    wants_room: bool = False
    """Whether the last answer was cut before it said anything."""

    @property
    def num_tokens(self) -> int:
        """Length of the prompt, for an endpoint an estimate."""
        return len(self.token_ids) or self.num_estimated_tokens


def _answer_key(config: ProfileConfig) -> str:
    """What besides the prompt decides the answer, for its hash."""
    if config.engine == "endpoint":
        return json.dumps(request_fields(config), sort_keys=True)
    key = {
        "model": config.model,
        "dtype": config.dtype,
        "temperature": config.temperature,
        "repetition_penalty": config.repetition_penalty,
        "max_output_tokens": config.max_output_tokens,
        "stop": config.stop,
    }
    return json.dumps(key | ({"chat_options": config.options_of_chat()} if config.chat_options else {}))


class PromptWriter:
    """Writes prompts of at most `config.max_prompt_tokens` tokens.

    Where an endpoint is asked, they are messages; the tokenizer then only measures them and may be an estimate.

    Args:
        config: settings.
        texts: what the prompts show.
        tokenizer: the model's, or `EstimatedTokens`.
        item_kind: what the items are, such as films.

    Raises:
        ConfigError: a template cannot be used.
        SetupError: the model's chat template cannot be used.
    """

    def __init__(self, config: ProfileConfig, texts: TrainingTexts, tokenizer: Any, item_kind: str) -> None:
        self._config, self._texts = config, texts
        self._for_endpoint = config.engine == "endpoint"
        chats = load_chats(config, item_kind)
        if self._for_endpoint:  # which decides itself how an answer begins
            chats = {kind: replace(chat, answer_start="") for kind, chat in chats.items()}
        self._text = SafeText(tokenizer, chats.values())
        chat_tokens = ChatTokens(tokenizer, config)
        self._conversations = {
            kind: Conversation(kind, chat, chat_tokens, config.max_prompt_tokens) for kind, chat in chats.items()
        }
        self._line = lru_cache(CACHED_LINES)(self._new_line)
        self._answer_key = _answer_key(config)

    def items(self, keys: Sequence[int]) -> Iterator[Prompt]:
        """One prompt per item.

        Raises:
            ConfigError: there is no room for the title or id of an item.
        """
        for key in keys:
            text = self._texts.item(key)
            limit = int(TITLE_SHARE * self._config.max_prompt_tokens)
            fields = {
                "title": self._name(text),
                "brand": self._text.cut(text.brand, limit),
                "categories": self._text.cut(text.categories, limit),
                "description": self._text.cut(
                    text.description, int(DESCRIPTION_SHARE * self._config.max_prompt_tokens)
                ),
            }
            pieces = self._texts.histories_with(key, self._config.histories_per_item, self._config.items_per_history)
            lines = [self._joined(piece) for piece in pieces]
            uncut = "" if text.title else fields["title"]
            yield self._prompt("items", key, Known(fields=fields, list_name="histories", lines=lines, uncut=uncut))

    def users(self, keys: Sequence[int]) -> Iterator[Prompt]:
        """One prompt per user.

        Raises:
            ConfigError: there is no room for one line of a history.
        """
        for key in keys:
            history = self._texts.history(key)[-self._config.items_per_user :][::-1]
            lines = [self._line(item) for item in history]
            newest = self._texts.item(history[0])
            uncut = "" if newest.title else self._text.safe(newest.item_id)
            known = Known(fields={}, list_name="history", lines=lines, is_newest_first=True, uncut=uncut)
            yield self._prompt("users", key, known)

    def _prompt(self, kind: str, key: int, known: Known) -> Prompt:
        limit, conversation = self._config.max_prompt_tokens, self._conversations[kind]
        fitted = Fitting(conversation, known, self._text, limit).messages()
        if fitted is None:
            what = f"the title of item {key}" if kind == "items" else f"one line of the history of user {key}"
            raise ConfigError(
                f"profile.max_prompt_tokens={limit} has no room for the template and {what} (dense id); raise it or "
                f"shorten the template."
            )
        messages, token_ids = fitted
        asked = json.dumps(messages) if self._for_endpoint else token_ids
        prompt_hash = hashlib.sha256(f"{self._answer_key}{asked}".encode()).hexdigest()[:32]
        if self._for_endpoint:
            return Prompt(kind, key, [], prompt_hash, messages=tuple(messages), num_estimated_tokens=len(token_ids))
        return Prompt(kind, key, token_ids, prompt_hash, conversation.answer_start)

    def _name(self, text: ItemText) -> str:
        """The title, cut, or the whole id."""
        limit = int(TITLE_SHARE * self._config.max_prompt_tokens)
        return self._text.cut(text.title, limit) if text.title else self._text.safe(text.item_id)

    def _new_line(self, item: int) -> Line:
        """An item in one line of a history."""
        text = self._texts.item(item)
        limit = int(TITLE_SHARE * self._config.max_prompt_tokens)
        return self._measured(self._text.cut(text.line, limit) if text.title else self._text.safe(text.line))

    def _joined(self, piece: list[int]) -> Line:
        """Several items in one line, by name only."""
        return self._measured("; ".join(self._name(self._texts.item(item)) for item in piece))

    def _measured(self, line: str) -> Line:
        return line, self._text.num_tokens(bulleted([line]))
