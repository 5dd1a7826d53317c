"""Templates of prompts: a chat in a YAML file, refused with one sentence where it cannot be used.

    system: who the model is and what it writes; may use $item_kind
    message: the question with $placeholders; may use $item_kind
    answer_start: the words that every answer begins with; may be left out
    examples: worked examples, shown as earlier turns of the chat; may be left out
      - kinds: [films]  # values of data.item_kind; without it, every kind that no other entry names
        turns:
          - fields: {title: Alien, histories: [Blade Runner; Solaris]}
            answer: what a good answer to this is

The examples' questions are made of the same message as the real one, and come between system message and question.
"""

import difflib
import hashlib
import json
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.data.public_sets import item_kind
from sracl_dist.errors import ConfigError, brief, first_line

TEMPLATES = Path(__file__).parent / "templates"
PLACEHOLDERS = {
    "item": ("title", "brand", "categories", "description", "histories"),
    "user": ("history",),
}
ALWAYS_SHOWN = {"item": "title", "user": "history"}
"""What every prompt shows; an item without a title shows its id there."""
LISTS = ("histories", "history")
"""Placeholders for lines."""
ITEM_KIND = "item_kind"
TAG = re.compile(r"</?\w+>")
"""A mark that a template may put around data."""
MAX_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A worked example: what the log might say, and what a good answer is."""

    fields: Mapping[str, str]
    answer: str


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Worked examples for some kinds of items, case-folded; for all that no other entry names where it has none."""

    kinds: frozenset[str]
    turns: tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True)
class Chat:
    """A template for one kind of items."""

    item_kind: str = "items"
    system: str = ""
    message: str
    answer_start: str = ""
    turns: tuple[Turn, ...] = ()

    def system_message(self) -> str:
        """The text that is the same for all prompts."""
        return string.Template(self.system).substitute({ITEM_KIND: self.item_kind})

    def question(self, fields: Mapping[str, str]) -> str:
        """The message about one item or user.

        A line whose placeholders are all empty is left out, and so is a heading above it, which is a line without
        placeholders that ends with a colon; blank lines may stand between them.
        """
        lines: list[str] = []
        heading: int | None = None  # place of the heading that the next line would stand below
        is_bare = False  # what would stand below the heading is left out
        for line in self.message.splitlines():
            template = string.Template(line)
            names = [name for name in template.get_identifiers() if name != ITEM_KIND]
            if names and not any(fields.get(name) for name in names):
                is_bare = heading is not None
                continue
            if is_bare and not names:
                del lines[heading:]
                heading = None
            is_bare = False
            if names or line.strip():
                heading = len(lines) if not names and line.rstrip().endswith(":") else None
            lines.append(template.substitute(dict.fromkeys(names, "") | {**fields, ITEM_KIND: self.item_kind}))
        return "\n".join(lines[:heading] if is_bare else lines)

    def shape(self) -> str:
        """The message with its placeholders as they are written."""
        names = string.Template(self.message).get_identifiers()
        shown = {name: f"${name}" for name in names} | {ITEM_KIND: self.item_kind}
        return string.Template(self.message).substitute(shown)


@dataclass(frozen=True, kw_only=True)
class Template:
    """What a template file says."""

    system: str
    message: str
    answer_start: str
    examples: tuple[Examples, ...]

    def chat(self, kind: str) -> Chat:
        """For items of this kind, matched without case."""
        folded = kind.strip().casefold()
        own = [entry.turns for entry in self.examples if folded in entry.kinds]
        others = [entry.turns for entry in self.examples if not entry.kinds]
        return Chat(
            item_kind=kind,
            system=self.system,
            message=self.message,
            answer_start=self.answer_start,
            turns=next(iter([*own, *others]), ()),
        )


def load_template(kind: str, path: str | None) -> Template:
    """The template for `kind` (item or user) at `path`, or the one that comes with the package.

    Raises:
        ConfigError: it cannot be read, or something in it is missing, unknown or no text.
    """
    file = Path(path).expanduser() if path else TEMPLATES / f"{kind}.yaml"
    return _Reader(kind, file).template()


def load_chats(settings: ProfileConfig, kind: str) -> dict[str, Chat]:
    """The chats that ask about `items` and `users` where the items are of this kind.

    Raises:
        ConfigError: see `load_template`.
    """
    return {
        "items": load_template("item", settings.item_template).chat(kind),
        "users": load_template("user", settings.user_template).chat(kind),
    }


def template_facts(config: Config) -> dict[str, str]:
    """Hash of each template as this log's kind of items has it, so that an edited one makes the stage run again."""
    facts = {}
    for name, chat in load_chats(config.profile, item_kind(config.data)).items():
        turns = [[dict(turn.fields), turn.answer] for turn in chat.turns]
        told = [chat.system_message(), chat.shape(), chat.answer_start, turns]
        facts[f"template for {name}"] = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    return facts


def bulleted(lines: Iterable[str]) -> str:
    """Lines of a history as a prompt shows them."""
    return "\n".join(f"- {line}" for line in lines)


class _Reader:
    """Reads one file; whatever is wrong with it names the file, the place and what to do."""

    def __init__(self, kind: str, file: Path) -> None:
        self._kind, self._file = kind, file

    def template(self) -> Template:
        values = self._mapping(
            self._parsed(), "", required=("message",), optional=("system", "answer_start", "examples")
        )
        system = self._text(values.get("system", ""), "system")
        self._check_placeholders(system, "system", (ITEM_KIND,))
        message = self._text(values["message"], "message")
        self._check_placeholders(message, "message", (*PLACEHOLDERS[self._kind], ITEM_KIND))
        start = self._text(values.get("answer_start", ""), "answer_start")
        entries = self._list(values.get("examples") or [], "examples")
        examples = tuple(self._examples(entry, f"examples[{place}]", start) for place, entry in enumerate(entries))
        self._refuse_doubles(examples)
        self._require_data(message)
        return Template(system=system, message=message, answer_start=start, examples=examples)

    def _parsed(self) -> Any:
        try:
            with self._file.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            text = content.decode("utf-8")
        except (OSError, ValueError):
            key = f"profile.{self._kind}_template"
            raise ConfigError(f"The template {self._file} cannot be read as UTF-8 text; fix {key}.") from None
        if len(content) > MAX_BYTES:
            raise ConfigError(f"The template {self._file} is larger than {MAX_BYTES:,} bytes; shorten it.")
        try:
            return yaml.safe_load(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            where, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
            line = f" in line {where.line + 1}" if where else ""
            reason = first_line(Exception(problem)) if problem else "see docs/models.md"
            raise self._error("", f"is not valid YAML{line} ({reason})", "put texts with a colon in quotes") from None

    def _examples(self, value: Any, place: str, answer_start: str) -> Examples:
        values = self._mapping(value, place, required=("turns",), optional=("kinds",))
        kinds = self._list(values.get("kinds") or [], f"{place}.kinds")
        turns = self._list(values["turns"], f"{place}.turns")
        return Examples(
            kinds=frozenset(self._text(kind, f"{place}.kinds").casefold() for kind in kinds),
            turns=tuple(self._turn(turn, f"{place}.turns[{i}]", answer_start) for i, turn in enumerate(turns)),
        )

    def _turn(self, value: Any, place: str, answer_start: str) -> Turn:
        values = self._mapping(value, place, required=("fields", "answer"))
        names = PLACEHOLDERS[self._kind]
        fields = self._mapping(values["fields"], f"{place}.fields", optional=names)
        shown = dict.fromkeys(names, "")
        for name, text in fields.items():
            inside = f"{place}.fields.{name}"
            if name in LISTS:
                shown[name] = bulleted(self._text(line, inside) for line in self._list(text, inside))
            else:
                shown[name] = self._text(text, inside)
        answer = self._text(values["answer"], f"{place}.answer")
        if not answer:
            raise self._error(f"{place}.answer", "is empty", "write a good answer")
        if not answer.startswith(answer_start):
            raise self._error(
                f"{place}.answer", "does not begin with answer_start", f"begin with {brief(answer_start)}"
            )
        return Turn(fields=shown, answer=answer)

    def _mapping(
        self, value: Any, place: str, *, required: Sequence[str] = (), optional: Sequence[str] = ()
    ) -> dict[str, Any]:
        names = [*required, *optional]
        if not isinstance(value, dict):
            raise self._error(place, f"is {brief(value)}", f"use a mapping with {', '.join(names)}")
        for name in value:
            if name not in names:
                nearest = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
                remedy = f"did you mean {nearest[0]}?" if nearest else f"use {', '.join(names)}"
                raise self._error(place, f"has the unknown key {brief(name)}", remedy)
        for name in required:
            if name not in value:
                raise self._error(place, f"has no key {name}", "add it")
        return value

    def _list(self, value: Any, place: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._error(place, f"is {brief(value)}", "use a list")
        return value

    def _text(self, value: Any, place: str) -> str:
        if not isinstance(value, str):
            raise self._error(
                place, f"is {brief(value)}", "use a text, in quotes where YAML takes it for something else"
            )
        return value.strip()

    def _check_placeholders(self, text: str, place: str, allowed: Sequence[str]) -> None:
        template = string.Template(text)
        unknown = sorted(set(template.get_identifiers()) - set(allowed))
        if unknown or not template.is_valid():
            problem = f"has the placeholder ${unknown[0]}" if unknown else "has a stray $ (write $$ for the sign)"
            raise self._error(place, problem, f"use only {', '.join(f'${name}' for name in allowed)}")

    def _require_data(self, message: str) -> None:
        """Without the item's name or the user's history, prompts would show no data and have equal answers."""
        name = ALWAYS_SHOWN[self._kind]
        if name not in string.Template(message).get_identifiers():
            raise self._error("message", f"has no placeholder ${name}", "add it")

    def _refuse_doubles(self, examples: Sequence[Examples]) -> None:
        kinds = [kind for entry in examples for kind in (sorted(entry.kinds) or [""])]
        for kind in kinds:
            if kinds.count(kind) > 1:
                what = f"for the kind {brief(kind)}" if kind else "without kinds"
                raise self._error("examples", f"has two entries {what}", "put their turns together")

    def _error(self, place: str, problem: str, remedy: str) -> ConfigError:
        subject = f"The template {self._file}" if not place else f"{place} of the template {self._file}"
        end = "" if remedy.endswith("?") else "."
        return ConfigError(f"{subject} {problem}; {remedy}{end}")
