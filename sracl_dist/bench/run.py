"""One benchmark from its name and settings to the object that its job prints."""

import importlib
import json
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sracl_dist.bench import BENCHES
from sracl_dist.bench.settings import parse_settings
from sracl_dist.config.reference import field_docstrings
from sracl_dist.observe import say

SIGNIFICANT_DIGITS = 4


def run_bench(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Measure and return what is printed as JSON: `bench`, `figures` and `settings`.

    Args:
        name: one of BENCHES.
        words: settings as KEY=VALUE; the others have their defaults.

    Raises:
        ConfigError: a setting is unknown or has an impossible value.
    """
    function, kind = _load(name)
    settings = parse_settings(kind, words)
    values = asdict(settings)
    say(f"bench {name}: " + " ".join(f"{key}={_shown(value)}" for key, value in values.items()))
    figures = {key: float(f"{value:.{SIGNIFICANT_DIGITS}g}") for key, value in function(settings).items()}
    return {"bench": name, "figures": figures, "settings": values}


def describe_settings(name: str) -> str:
    """A line per setting of the benchmark: its name, its default and what it means."""
    _, kind = _load(name)
    texts = field_docstrings(kind)
    return "\n".join(f"  {key}={_shown(value)}: {texts[key]}" for key, value in asdict(kind()).items())


def _shown(value: Any) -> str:
    """As it would be written behind KEY=."""
    return value if isinstance(value, str) else json.dumps(value)


def _load(name: str) -> tuple[Callable[[Any], dict[str, float]], type[Any]]:
    """The function, and the dataclass that it takes as `settings`."""
    module, attribute = BENCHES[name].split(":")
    function = getattr(importlib.import_module(module), attribute)
    return function, typing.get_type_hints(function)["settings"]
