"""Secrets of the environment, and what is left of a text that holds them."""

import ast
import base64
import html
import json
import pickle
import shlex
import sys
import time
import urllib.parse
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sracl_dist.errors import MAX_END_CHARS, MAX_START_CHARS, ConfigError, first_line
from sracl_dist.observe import say
from sracl_dist.secrets import MIN_CHARS, declare, masked, referenced, without

SECRET = "sk-0'1\"2&3/4\\5 6\u00e97%AbC"
KEYS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=MIN_CHARS, max_size=40)


@pytest.mark.parametrize(
    "name",
    ["SRACL_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD", "PGPASSWORD", "secret", "SMTP_PASS", "KEY2"],
)
def test_variables_that_are_named_like_secrets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert masked(SECRET) == SECRET
    monkeypatch.setenv(name, SECRET + "\n")
    assert masked(f"the value {SECRET}.") == "the value ***."


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYBOARD", "OLDPWD", "SSH_KEY_PATH", "HOME"])
def test_variables_that_are_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, SECRET)
    assert masked(SECRET) == SECRET


def test_a_short_value_is_a_word_that_texts_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "short")
    assert masked("a short text") == "a short text"


def test_a_variable_can_be_declared_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRACL_TEST_DECLARED", SECRET)
    assert masked(SECRET) == SECRET
    declare("SRACL_TEST_DECLARED")
    assert masked(SECRET) == "***"


@pytest.mark.parametrize(
    "spell",
    [
        repr,
        ascii,
        json.dumps,
        html.escape,
        shlex.quote,
        urllib.parse.quote,
        urllib.parse.quote_plus,
        lambda text: json.dumps(text, ensure_ascii=False),
        lambda text: urllib.parse.quote(text, safe="").lower().replace("abc", "AbC"),
    ],
)
def test_every_spelling_of_a_message_is_masked(spell: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    assert masked(f"x {spell(SECRET)} y").strip("xy '\"") == "***"  # type: ignore[operator]


def test_values_of_any_kind_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "12345678")
    monkeypatch.setenv("OTHER_KEY", "123456789")
    value = {"a": ["x12345678y", 12345678, 1.5, True, None], "12345678": ("123456789",)}
    assert masked(value) == {"a": ["x***y", "***", 1.5, True, None], "***": ("***",)}


def test_a_reference_stands_for_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "12345678")
    assert referenced({"a": ["x12345678y", 3]}) == {"a": ["x${oc.env:API_KEY}y", 3]}
    monkeypatch.setenv("API_KEY", "12345678\n")
    assert referenced("12345678") == "***", "a reference would yield something else"


DISGUISES = [
    str,
    str.upper,
    str.lower,
    lambda key: key[::-1],
    lambda key: key[::-1].swapcase(),
    lambda key: base64.b64encode(key.encode()).decode(),
    lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    lambda key: base64.b64encode(key.encode()).decode().rstrip("="),
    lambda key: base64.b64encode(f"u:{key}".encode()).decode(),
    lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
    lambda key: urllib.parse.quote(key, safe=""),
    lambda key: "".join(f"%{ord(character):02x}" for character in key),
    lambda key: key.encode().hex(),
    lambda key: key.encode().hex().upper(),
]


@given(KEYS, st.sampled_from(DISGUISES))
def test_a_disguised_key_leaves_nothing(key: str, disguise: object) -> None:
    shown = disguise(key)  # type: ignore[operator]
    assert without(f"<{shown}>", key) in ("<***>", "<dT***>", "<QmVhcmVyI***>"), "but what stood before it"


def test_other_words_stay() -> None:
    text = "The sk- of another: sk-987654321 or c2stOTg3NjU0MzIx"
    assert without(text, "sk-0123456789") == text
    assert without("none of them", "none") == "none of them"


def test_an_error_holds_no_secret_and_is_no_longer_than_a_person_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    error = pickle.loads(pickle.dumps(ConfigError(f"run.dir is {SECRET!r}; name a folder.")))
    assert (type(error), str(error)) == (ConfigError, "run.dir is '***'; name a folder.")
    long = str(ConfigError(f"run.dir is {'x' * 10**6!r}; name a folder."))
    assert len(long) < MAX_START_CHARS + MAX_END_CHARS + 50
    assert long.startswith("run.dir is 'xxx")
    assert long.endswith("xxx'; name a folder.")
    for num in range(280, 300):
        assert "sk-" not in first_line(ValueError("x" * num + SECRET))


def test_nothing_said_holds_a_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("API_KEY", SECRET)
    say(f"next is {SECRET}")
    assert capsys.readouterr().err == "next is ***\n"


def test_no_module_writes_past_the_outlets() -> None:
    package = Path(sys.modules["sracl_dist"].__file__ or "").parent
    writers = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            is_stream = isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr")
            if is_stream and isinstance(node.value, ast.Name) and node.value.id == "sys":  # type: ignore[attr-defined]
                writers.add(file.relative_to(package).as_posix())
    assert writers == {"observe.py", "config/reference.py"}, "print is left to the linter"


def test_a_text_that_begins_like_a_secret_costs_no_more_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokens of the same service begin alike; the time must not double with every character that they share."""
    monkeypatch.setenv("SERVICE_TOKEN", "a" * 290)
    started = time.process_time()
    assert masked("a" * 289 + "b") == "a" * 289 + "b"
    assert masked("b" + "a" * 290) == "b***"
    assert without("A" * 250 + "!", "a" * 260) == "A" * 250 + "!"
    assert time.process_time() - started < 20


def test_a_number_that_holds_a_secret_is_one_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", "123456")
    assert masked({"rows": 1234567, "pin": 123456}) == {"rows": 1234567, "pin": "***"}
