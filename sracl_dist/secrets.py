"""Secrets of the environment, which are neither shown nor kept: found in a text and taken out of it.

A secret is the value of an environment variable that is named like one, such as HF_TOKEN or DB_PASSWORD, and has
MIN_CHARS characters or more; a shorter one is a word that any text may hold.
"""

import base64
import html
import json
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

HIDDEN = "***"
MIN_CHARS = 6
MAX_SPELLED_CHARS = 300
"""A longer secret is looked for as it is and as Python and JSON quote it, but not in every mixture of spellings."""
_SECRET_NAME = re.compile(
    r"(KEYS?|TOKEN|SECRETS?|PASSWORDS?|PASSWD|PASSPHRASE|CREDENTIALS?|_PWD|_PASS|_PAT|_AUTH)\d*(_|$)"
    r"(?!.*(FILE|PATH|DIR|NAME|VARIABLE)$)"
)
_IS_REPLACED = re.compile(re.escape(HIDDEN) + r"|\$\{oc\.env:[^}]+\}")
_declared: set[str] = set()


def declare(name: str) -> None:
    """Count an environment variable among the secrets, whatever its name."""
    _declared.add(name)


def masked(value: Any) -> Any:
    """The text without secrets, however Python, JSON, HTML, a shell or a URL spell them; lists and mappings alike."""
    secrets = tuple(_secrets())
    return _replaced(value, lambda text: _any_of(secrets).sub(HIDDEN, text)) if secrets else value


def referenced(value: Any) -> Any:
    """A setting that can be written down and read again: `${oc.env:NAME}` stands where a secret was."""

    def refer(text: str) -> str:
        for name in _secrets().values():
            text = text.replace(os.environ[name], f"${{oc.env:{name}}}")
        return text

    return masked(_replaced(value, refer))


def without(text: str, secret: str) -> str:
    """The text without one secret, in any case, reversed, in base64, in hexadecimal or escaped."""
    return _disguises(secret).sub(HIDDEN, text) if len(secret) >= MIN_CHARS else text


def _secrets() -> dict[str, str]:
    """Name of its variable by secret, long ones first since one may hold another."""
    values = {
        value.strip(): name
        for name, value in os.environ.items()
        if len(value.strip()) >= MIN_CHARS and (name in _declared or _is_secret(name))
    }
    return dict(sorted(values.items(), key=lambda pair: -len(pair[0])))


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name.upper()) is not None


def _replaced(value: Any, replace: Any) -> Any:
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, dict):
        return {_replaced(key, replace): _replaced(inner, replace) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(inner, replace) for inner in value)
    if isinstance(value, int | float):
        text = replace(str(value))
        return text if _IS_REPLACED.fullmatch(text) else value  # a number that only holds a secret is one by chance
    return value


@lru_cache(maxsize=64)
def _any_of(secrets: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(_spelled(secret) for secret in secrets))


@lru_cache(maxsize=64)
def _disguises(secret: str) -> re.Pattern[str]:
    forms = [_spelled(secret), _spelled(secret[::-1]), os.fsencode(secret).hex(), *_in_base64(os.fsencode(secret))]
    return re.compile("|".join(forms), re.IGNORECASE)


def _spelled(secret: str) -> str:
    """Pattern of the secret, each of its characters as it is or escaped in some way."""
    if len(secret) > MAX_SPELLED_CHARS:
        return "|".join(re.escape(form) for form in {secret, repr(secret)[1:-1], _json(secret)})
    return "".join(f"(?:{'|'.join(_spellings(character))})" for character in secret)


def _spellings(character: str) -> Sequence[str]:
    code, percent = ord(character), "".join(f"%{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    hexadecimal = "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in f"{code:x}")
    percent = re.sub("[a-f]", lambda digit: f"[{digit[0]}{digit[0].upper()}]", percent)
    named = {re.escape(html.escape(character)), re.escape(repr(character)[1:-1]), re.escape(_json(character))}
    escaped = [rf"\\[xuU]0*{hexadecimal}", rf"&#(?:0*{code}|[xX]0*{hexadecimal});", rf"\\{re.escape(character)}"]
    others = {"'": ["'\"'\"'"], " ": [r"\+"]}.get(character, [])  # as a shell and a form write them
    # %25 goes ahead of the % that it begins with. Each once: a character that matches in two ways would double the time
    # at every place that is like the secret.
    return list(dict.fromkeys([percent, re.escape(character), *sorted(named), *escaped, *others]))


def _json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _in_base64(secret: bytes) -> list[str]:
    """Patterns of the secret within whatever is encoded: alone, or behind one or two other bytes."""
    patterns = []
    for num_before in range(3):
        first, over = divmod(8 * num_before, 6)
        last, left = divmod(8 * (num_before + len(secret)), 6)
        text = base64.b64encode(bytes(num_before) + secret).decode()[first + bool(over) : last]
        # What it shares a character with goes too.
        either = re.escape(text).replace(r"\+", "[+-]").replace("/", "[/_]")
        patterns.append(f"{'[A-Za-z0-9+/_-]?' if over else ''}{either}{'[A-Za-z0-9+/_-]?' if left else ''}=*")
    return patterns
