"""How a setting is declared and refused."""

import json
from collections.abc import Sequence
from dataclasses import MISSING, field
from typing import Any

from sracl_dist.errors import brief

NEUTRAL = "neutral"


def neutral(default: Any = MISSING) -> Any:
    """Declare a field whose value cannot change a stage's result."""
    return field(default=default, metadata={NEUTRAL: True})


def named_values(entries: Sequence[str]) -> dict[str, Any]:
    """Entries NAME=JSON as names and values."""
    pairs = (entry.partition("=") for entry in entries)
    return {name.strip(): json.loads(text) for name, _, text in pairs}


def require_named_values(entries: Sequence[str], key: str, own: Sequence[str], example: str) -> None:
    """Raise ValueError for an entry that is not NAME=JSON, or whose name is one of the program's `own`."""
    for entry in entries:
        name, equals, text = entry.partition("=")
        try:
            json.dumps(json.loads(text), allow_nan=False)
            readable = bool(equals and name.strip())
        except (ValueError, RecursionError):
            readable = False
        require(readable, key, entry, f"write NAME=JSON, for example {example}")
        require(name.strip() not in own, key, entry, f"leave out {', '.join(own)}")


def require(condition: bool, key: str, value: object, mend: str) -> None:
    """Raise ValueError that names the key, the value and what to do unless `condition` holds."""
    if not condition:
        raise ValueError(f"{key} is {brief(value)}; {mend}")
