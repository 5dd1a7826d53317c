"""Settings of a benchmark that would break a parser."""

from dataclasses import dataclass

import pytest

from sracl_dist.bench.settings import parse_settings
from sracl_dist.errors import ConfigError


@dataclass(kw_only=True)
class Settings:
    """What is measured."""

    rounds: int = 3
    name: str = "all"


def test_words_over_defaults() -> None:
    assert parse_settings(Settings, ["rounds=5", "name=x"]) == Settings(rounds=5, name="x")
    assert parse_settings(Settings, []) == Settings()


@pytest.mark.parametrize(
    "value",
    ["[" * 100_000, "[" * 5000 + "]" * 5000, "a\0", "1" * 5000, "!!int x", "a" * 2_000_000, "${rounds}", "x"],
)
def test_a_value_that_cannot_be_read_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"^rounds is ") as caught:
        parse_settings(Settings, [f"rounds={value}"])
    assert len(str(caught.value)) < 400
