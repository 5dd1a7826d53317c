"""How a setting is declared and refused."""

from dataclasses import MISSING, field
from typing import Any

from sracl_dist.errors import brief

NEUTRAL = "neutral"


def neutral(default: Any = MISSING) -> Any:
    """Declare a field whose value cannot change a stage's result."""
    return field(default=default, metadata={NEUTRAL: True})


def require(condition: bool, key: str, value: object, mend: str) -> None:
    """Raise ValueError that names the key, the value and what to do unless `condition` holds."""
    if not condition:
        raise ValueError(f"{key} is {brief(value)}; {mend}")
