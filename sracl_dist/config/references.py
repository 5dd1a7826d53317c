"""What the references of a configuration would yield, told without following them: a few can yield any amount."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sracl_dist.config.text import MAX_DEPTH, TextError

MAX_RESOLVED = 2_000_000
"""Characters that all references together may yield, each reference counted as REFERENCE_CHARS more."""
REFERENCE_CHARS = 100
ADVICE = "write the value out"


def refuse_growth(values: Mapping[str, Any]) -> None:
    """Follow the references between values, as sections within sections, without resolving them.

    Raises:
        TextError: they would yield more than MAX_RESOLVED, or a key's name is itself a reference; it names the key.
    """
    texts = dict(leaves(values, ""))
    by_part = _by_part(texts) if any("${" in text for text in texts.values()) else {}
    sizes: dict[str, int] = {}

    def size(name: str, path: tuple[str, ...]) -> int:
        if name in path:
            return 0  # a circle, which resolving refuses
        if len(path) > MAX_DEPTH:
            raise TextError(f"{path[0]} refers to a chain of references longer than {MAX_DEPTH}; {ADVICE}")
        if name not in sizes:
            words = _words(name, texts[name])
            others = [other for word in words for other in ([word] if word in texts else by_part.get(word, []))]
            if len(others) * REFERENCE_CHARS > MAX_RESOLVED:
                raise TextError(f"{name} refers to too many values; {ADVICE}")
            inner = sum(size(other, (*path, name)) for other in others)
            sizes[name] = REFERENCE_CHARS + len(texts[name]) + inner
        return sizes[name]

    whole = 0
    for name in [name for name, text in texts.items() if "${" in text]:
        whole += size(name, ())
        if whole > MAX_RESOLVED:
            raise TextError(f"{name} refers to values that refer to others, too many to follow; {ADVICE}")


def leaves(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every value's place and text below `name`, the places of a list being numbers."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)


def _words(name: str, text: str) -> list[str]:
    """What the references name, inner ones too."""
    words, num_found = [], 1
    while num_found:
        for inside in (found := re.findall(r"\$\{([^{}]*)\}", text)):
            if re.match(r"[^:]*\0", inside):
                raise TextError(f"{name} has a reference whose name is itself a reference; {ADVICE}")
            places = re.findall(r"[\w.]+", re.sub(r"[\[\]]", ".", inside))
            words += [".".join(filter(None, place.split("."))) for place in places]
        num_found = len(found)
        text = re.sub(r"\$\{[^{}]*\}", "\0", text)
    return words


def _by_part(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by every run of their parts, which is what a section and a relative reference are."""
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split(".")
        for start, end in itertools.combinations(range(len(parts) + 1), 2):
            found.setdefault(".".join(parts[start:end]), []).append(name)
    return found
