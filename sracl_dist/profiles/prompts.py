"""Prompts as in the paper: an item by its attributes and histories that contain it, a user by its ordered history.

They are chats (see template.py and conversation.py). Data are never cut within an id: long titles and descriptions end
at a word, histories lose whole items.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import ConfigError
from sracl_dist.profiles.chat import CONTROL_TOKENS, EstimatedTokens, Message, request_fields
from sracl_dist.profiles.conversation import ChatTokens, Conversation
from sracl_dist.profiles.template import TAG, Chat, bulleted, load_chats
from sracl_dist.profiles.texts import TrainingTexts
from sracl_dist.profiles.thoughts import THOUGHT_MARKS

TITLE_SHARE = 0.25
"""Largest part of the prompt that one title, brand or category text may take."""
DESCRIPTION_SHARE = 0.4
"""Largest part of the prompt that the description may take."""


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


def _control_tokens(tokenizer: Any, chats: Iterable[Chat]) -> re.Pattern[str]:
    """Everything that data must not be able to write: added tokens of the tokenizer, marks of thoughts and of data.

    Marks of data are the tags that a template writes around them, such as <data>.
    """
    if isinstance(tokenizer, EstimatedTokens):
        tokens = [CONTROL_TOKENS.pattern]
    else:
        added = (token.content for token in tokenizer.added_tokens_decoder.values())
        longest_first = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        tokens = [re.escape(token) for token in longest_first if token.strip()]
    tags = {re.escape(tag) for chat in chats for tag in TAG.findall(chat.message)}
    return re.compile("|".join([*tokens, f"(?i:{THOUGHT_MARKS.pattern})", *sorted(tags)]))


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
        self._config, self._texts, self._tokenizer = config, texts, tokenizer
        self._for_endpoint = config.engine == "endpoint"
        chats = load_chats(config, item_kind)
        if self._for_endpoint:  # which decides itself how an answer begins
            chats = {kind: replace(chat, answer_start="") for kind, chat in chats.items()}
        self._special = _control_tokens(tokenizer, chats.values())
        chat_tokens = ChatTokens(tokenizer, config)
        self._conversations = {
            kind: Conversation(kind, chat, chat_tokens, config.max_prompt_tokens) for kind, chat in chats.items()
        }
        self._lines: dict[int, tuple[str, int]] = {}
        self._answer_key = _answer_key(config)

    def items(self, keys: Sequence[int]) -> Iterator[Prompt]:
        """One prompt per item."""
        for key in keys:
            text = self._texts.item(key)
            limit = int(TITLE_SHARE * self._config.max_prompt_tokens)
            fields = {
                "title": self._cut(text.title, limit) if text.title else self._safe(text.item_id),
                "brand": self._cut(text.brand, limit),
                "categories": self._cut(text.categories, limit),
                "description": self._cut(text.description, int(DESCRIPTION_SHARE * self._config.max_prompt_tokens)),
            }
            pieces = self._texts.histories_with(key, self._config.histories_per_item, self._config.items_per_history)
            yield self._fitted("items", key, fields, "histories", [self._joined(piece) for piece in pieces])

    def users(self, keys: Sequence[int]) -> Iterator[Prompt]:
        """One prompt per user."""
        for key in keys:
            history = self._texts.history(key)[-self._config.items_per_user :]
            yield self._fitted("users", key, {}, "history", [self._line(item) for item in reversed(history)])

    def _fitted(
        self, kind: str, key: int, fields: dict[str, str], list_name: str, lines: list[tuple[str, int]]
    ) -> Prompt:
        """Fill in the fields and as many lines, the most important first, as there is room for.

        Lines of a user's history come newest first and are shown oldest first.
        """
        limit, conversation = self._config.max_prompt_tokens, self._conversations[kind]
        examples = conversation.examples_for(fields.get("title", ""))
        room, num_lines = limit - len(conversation.token_ids(conversation.messages(examples, fields))), 0
        for _, num_tokens in lines:
            room -= num_tokens + 1
            if room < 0:
                break
            num_lines += 1
        while True:
            shown = [line for line, _ in lines[:num_lines]]
            text = bulleted(reversed(shown) if kind == "users" else shown)
            messages = conversation.messages(examples, {**fields, list_name: text})
            token_ids = conversation.token_ids(messages)
            if len(token_ids) <= limit:
                break
            if num_lines:
                num_lines -= 1
            elif not self._drop_field(fields):
                raise ConfigError(
                    f"The template for {kind} alone takes {len(token_ids)} tokens, more than "
                    f"profile.max_prompt_tokens={limit}; raise it or shorten the template."
                )
        asked = json.dumps(messages) if self._for_endpoint else token_ids
        prompt_hash = hashlib.sha256(f"{self._answer_key}{asked}".encode()).hexdigest()[:32]
        if self._for_endpoint:
            return Prompt(kind, key, [], prompt_hash, messages=tuple(messages), num_estimated_tokens=len(token_ids))
        return Prompt(kind, key, token_ids, prompt_hash, conversation.answer_start)

    @staticmethod
    def _drop_field(fields: dict[str, str]) -> bool:
        """Empty the least important field that is not empty yet."""
        for name in ("description", "categories", "brand", "title"):
            if fields.get(name):
                fields[name] = ""
                return True
        return False

    def _line(self, item: int) -> tuple[str, int]:
        """An item in one line of a history, and its length in tokens."""
        if item not in self._lines:
            text = self._texts.item(item)
            limit = int(TITLE_SHARE * self._config.max_prompt_tokens)
            line = self._cut(text.line, limit) if text.title else self._safe(text.line)
            self._lines[item] = (line, self._num_tokens(line))
        return self._lines[item]

    def _joined(self, piece: list[int]) -> tuple[str, int]:
        """Several items in one line, by name only."""
        limit = int(TITLE_SHARE * self._config.max_prompt_tokens)
        texts = [self._texts.item(item) for item in piece]
        line = "; ".join(self._cut(text.title, limit) if text.title else self._safe(text.item_id) for text in texts)
        return line, self._num_tokens(line)

    def _num_tokens(self, line: str) -> int:
        return len(self._tokenizer(f"- {line}", add_special_tokens=False)["input_ids"])

    def _safe(self, text: str) -> str:
        """Without control tokens and marks."""
        return self._special.sub(" ", text)

    def _cut(self, text: str, max_tokens: int) -> str:
        """Safe, and cut at a word to at most `max_tokens` tokens."""
        text = self._safe(text)
        if len(text) <= max_tokens:
            return text
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        if len(encoded["input_ids"]) <= max_tokens:
            return text
        end = encoded["offset_mapping"][max_tokens - 1][1]
        cut = text[:end]
        if " " in cut and not text[end : end + 1].isspace():
            cut = cut.rsplit(None, 1)[0]
        return cut + " ..."
