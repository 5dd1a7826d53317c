"""Prompts as in the paper: an item by its attributes and histories that contain it, a user by its ordered history.

A template is a text file: the constant system message, a line `---`, and the message about one item or user with
$placeholders; behind another `---` the words that every answer begins with, which keep small models from repeating the
question. A line whose placeholders are all empty is left out. Constant text comes first, so that an engine can cache
it. Data are never cut within an id: long titles and descriptions end at a word, histories lose whole items.
"""

import hashlib
import json
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import ConfigError
from sracl_dist.profiles.chat import CONTROL_TOKENS, EstimatedTokens, Message, request_fields
from sracl_dist.profiles.texts import TrainingTexts

TEMPLATES = Path(__file__).parent / "templates"
PLACEHOLDERS = {
    "item": ("title", "brand", "categories", "description", "histories"),
    "user": ("history",),
}
TITLE_SHARE = 0.25
"""Largest part of the prompt that one title, brand or category text may take."""
DESCRIPTION_SHARE = 0.4
"""Largest part of the prompt that the description may take."""


@dataclass(frozen=True)
class Template:
    """System message, the message about one item or user, and the words that the answer begins with, if any."""

    system: str
    message: str
    answer_start: str


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


def load_template(kind: str, path: str | None) -> Template:
    """The template at `path`, or the one that comes with the package.

    Raises:
        ConfigError: it cannot be read, has no `---` line, or names an unknown placeholder.
    """
    file = Path(path).expanduser() if path else TEMPLATES / f"{kind}.txt"
    key = f"profile.{kind}_template"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"The template {file} cannot be read as UTF-8 text; mend {key}.") from None
    system, separator, rest = text.partition("\n---\n")
    message, _, answer_start = rest.partition("\n---\n")
    if not separator:
        raise ConfigError(f"The template {file} has no line '---' after the system message; add it.")
    template = string.Template(message)
    unknown = sorted(set(template.get_identifiers()) - set(PLACEHOLDERS[kind]))
    if unknown or not template.is_valid():
        allowed = ", ".join(f"${name}" for name in PLACEHOLDERS[kind])
        problem = f"the placeholder ${unknown[0]}" if unknown else "a stray $ (write $$ for the sign)"
        raise ConfigError(f"The template {file} has {problem}; use only {allowed}.")
    return Template(system.strip(), message.strip(), answer_start.strip())


def template_facts(config: Config) -> dict[str, str]:
    """Hash of each template's text, so that an edited template makes the stage run again."""
    facts = {}
    for kind, path in (("item", config.profile.item_template), ("user", config.profile.user_template)):
        template = load_template(kind, path)
        text = "\n".join((template.system, template.message, template.answer_start))
        facts[f"{kind} template"] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return facts


def _control_tokens(tokenizer: Any) -> re.Pattern[str]:
    """Everything that data must not be able to write: the tokenizer's added tokens and the marks around the data."""
    if isinstance(tokenizer, EstimatedTokens):
        return re.compile(f"{CONTROL_TOKENS.pattern}|</?data>")
    added = (token.content for token in tokenizer.added_tokens_decoder.values())
    tokens = sorted({*tokenizer.all_special_tokens, *added}, key=len, reverse=True)
    return re.compile("|".join([*(re.escape(token) for token in tokens if token.strip()), "</?data>"]))


def _answer_key(config: ProfileConfig) -> str:
    """What besides the prompt decides the answer, for its hash."""
    if config.engine == "endpoint":
        return json.dumps(request_fields(config), sort_keys=True)
    return json.dumps(
        {
            "model": config.model,
            "dtype": config.dtype,
            "temperature": config.temperature,
            "repetition_penalty": config.repetition_penalty,
            "max_output_tokens": config.max_output_tokens,
            "stop": config.stop,
        }
    )


class PromptWriter:
    """Writes prompts of at most `config.max_prompt_tokens` tokens.

    Where an endpoint is asked, they are messages; the tokenizer then only measures them and may be an estimate.
    """

    def __init__(self, config: ProfileConfig, texts: TrainingTexts, tokenizer: Any) -> None:
        self._config, self._texts, self._tokenizer = config, texts, tokenizer
        self._special = _control_tokens(tokenizer)
        self._item_template = load_template("item", config.item_template)
        self._user_template = load_template("user", config.user_template)
        self._lines: dict[int, tuple[str, int]] = {}
        self._for_endpoint = config.engine == "endpoint"
        if self._for_endpoint:  # which decides itself how an answer begins
            self._item_template = replace(self._item_template, answer_start="")
            self._user_template = replace(self._user_template, answer_start="")
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
            histories = [self._joined(piece) for piece in pieces]
            yield self._fitted("items", key, self._item_template, fields, "histories", histories)

    def users(self, keys: Sequence[int]) -> Iterator[Prompt]:
        """One prompt per user."""
        for key in keys:
            history = self._texts.history(key)[-self._config.items_per_user :]
            lines = [self._line(item) for item in reversed(history)]
            yield self._fitted("users", key, self._user_template, {}, "history", lines)

    def _fitted(
        self,
        kind: str,
        key: int,
        template: Template,
        fields: dict[str, str],
        list_name: str,
        lines: list[tuple[str, int]],
    ) -> Prompt:
        """Fill in the fields and as many lines, the most important first, as there is room for.

        Lines of a user's history come newest first and are shown oldest first.
        """
        limit = self._config.max_prompt_tokens
        without = self._token_ids(template, self._messages(template, {**fields, list_name: ""}))
        room, num_lines = limit - len(without), 0
        for _, num_tokens in lines:
            room -= num_tokens + 1
            if room < 0:
                break
            num_lines += 1
        while True:
            shown = [line for line, _ in lines[:num_lines]]
            text = "\n".join(f"- {line}" for line in (reversed(shown) if kind == "users" else shown))
            messages = self._messages(template, {**fields, list_name: text})
            token_ids = self._token_ids(template, messages)
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
        return Prompt(kind, key, token_ids, prompt_hash, template.answer_start)

    @staticmethod
    def _drop_field(fields: dict[str, str]) -> bool:
        """Empty the least important field that is not empty yet."""
        for name in ("description", "categories", "brand", "title"):
            if fields.get(name):
                fields[name] = ""
                return True
        return False

    @staticmethod
    def _messages(template: Template, fields: dict[str, str]) -> list[Message]:
        """The conversation, without the lines whose placeholders are all empty."""
        lines = []
        for line in template.message.splitlines():
            names = string.Template(line).get_identifiers()
            if not names or any(fields.get(name) for name in names):
                lines.append(string.Template(line).substitute(fields))
        return [{"role": "system", "content": template.system}, {"role": "user", "content": "\n".join(lines)}]

    def _token_ids(self, template: Template, messages: list[Message]) -> list[int]:
        """Token ids of the whole conversation up to where the model goes on, behind the answer's first words."""
        started = self._tokenizer(template.answer_start, add_special_tokens=False)["input_ids"]
        if self._tokenizer.chat_template is None:
            text = "\n\n".join(message["content"] for message in messages) + "\n"
            return [*self._tokenizer(text)["input_ids"], *started]
        asked = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return [*asked, *started]

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
        """Without control tokens and the marks around the data."""
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
