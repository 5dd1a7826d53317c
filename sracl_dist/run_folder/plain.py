"""JSON that may be damaged: parsed without a trace, sealed, and checked against the fields of a dataclass."""

import hashlib
import json
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
DIGEST = "sha256"
"""Key of the digest of a mapping's other keys."""


def parse_json(content: bytes | str) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: it is no JSON, or nested deeper than this program reads.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def sealed_json(value: dict[str, Any]) -> bytes:
    """A JSON text of a mapping that carries its own digest, so that no character of it changes unseen."""
    plain = json.loads(json.dumps(value))  # keys that are no texts become some, which are sorted in another order
    return (json.dumps(plain | {DIGEST: _digest_of(plain)}, indent=2, ensure_ascii=False) + "\n").encode()


def parse_sealed_json(content: bytes) -> dict[str, Any]:
    """The mapping that `sealed_json` wrote.

    Raises:
        ValueError: it is no JSON, or something in it has changed.
    """
    value = parse_json(content)
    if not isinstance(value, dict):
        raise ValueError("it is no mapping")
    digest = value.pop(DIGEST, None)
    if digest != _digest_of(value):
        raise ValueError("it was changed")
    return value


def _digest_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def dataclass_from(kind: type[T], value: Any) -> T:
    """An instance of a dataclass from the mapping of its fields.

    Raises:
        ValueError: a field is missing, unknown, or has a value of another type.
    """
    if not isinstance(value, dict):
        raise ValueError("it is no mapping")
    hints = get_type_hints(kind)
    members: Any = fields(kind)  # type: ignore[arg-type]
    for member in members:
        is_required = member.default is MISSING and member.default_factory is MISSING
        if is_required and member.name not in value:
            raise ValueError(f"{member.name} is missing")
    for name, own in value.items():
        if name not in hints:
            raise ValueError(f"{str(name)[:80]!r} is no field of it")
        if not fits(own, hints[name]):
            raise ValueError(f"{name} has a value of a wrong type")
    return kind(**value)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value from JSON has a type such as `int`, `list[str]`, `dict[str, float]` or `str | None`."""
    kind, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if kind is Literal:
        return value in arguments
    if kind in (Union, UnionType):
        return any(fits(value, argument) for argument in arguments)
    if kind is list:
        return isinstance(value, list) and all(fits(own, arguments[0]) for own in value)
    if kind is dict:
        return isinstance(value, dict) and all(fits(own, arguments[1]) for own in value.values())
    if isinstance(value, bool):  # which Python takes for a number
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)
