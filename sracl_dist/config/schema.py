"""What the configuration may hold: every key with its type, default and meaning, read from the dataclasses."""

import types
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from sracl_dist.config.sections import NEUTRAL, Config

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


@dataclass(frozen=True, kw_only=True)
class Key:
    """One setting."""

    name: str
    """Dotted name, such as train.epochs."""
    hint: Any
    """Its type."""
    default: Any
    is_neutral: bool
    """Whether it cannot change a stage's result."""
    owner: type
    """The dataclass that declares it."""

    @property
    def is_mapping(self) -> bool:
        """Whether it holds keys of the user's own, which are not settings."""
        return get_origin(self.hint) is dict


def all_keys(section: type = Config, prefix: str = "") -> list[Key]:
    """Every setting below the section, in the order of declaration."""
    keys = []
    hints = get_type_hints(section)
    for member in fields(section):
        name, hint = prefix + member.name, hints[member.name]
        if is_dataclass(hint):
            keys += all_keys(cast(type, hint), name + ".")
            continue
        default = member.default if member.default_factory is MISSING else member.default_factory()
        is_neutral = bool(member.metadata.get(NEUTRAL))
        keys.append(Key(name=name, hint=hint, default=default, is_neutral=is_neutral, owner=section))
    return keys


def all_sections(keys: Sequence[Key]) -> list[str]:
    """Names of the sections, outer ones first, each once."""
    names: dict[str, None] = {}
    for key in keys:
        parts = key.name.split(".")[:-1]
        names.update(dict.fromkeys(".".join(parts[: depth + 1]) for depth in range(len(parts))))
    return list(names)


def in_words(hint: Any) -> str:
    """The type as a person would name it: `a whole number, or null`."""
    origin, members = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(member) for member in members if member is not type(None)) + ", or null"
    if origin is Literal:
        return "one of " + ", ".join(str(member) for member in members)
    if origin is dict:
        return "a mapping such as {a: b}"
    if origin is list:
        return "a list such as [a, b]"
    return _WORDS[hint]
