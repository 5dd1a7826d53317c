"""Asking in the tests of endpoints: a server, prompts, and an environment without the secrets of this machine."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pytest
from chat_server import MODEL, Behaviour, ChatServer

from sracl_dist.columns import ERROR, PROMPT_HASH, TEXT
from sracl_dist.config.sections import EndpointConfig, ProfileConfig
from sracl_dist.profiles.answers import ANSWERS
from sracl_dist.profiles.endpoint import ask_endpoint
from sracl_dist.profiles.prompts import Prompt

KEY = "sk-never/to+be=seen-0123456789"
Serve = Callable[[Behaviour], ChatServer]


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-service")
    monkeypatch.delenv("SRACL_API_KEY", raising=False)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:
        yield lambda behaviour: stack.enter_context(ChatServer(behaviour).running())


def settings(server: ChatServer, **endpoint: Any) -> ProfileConfig:
    """Patient enough for every test, and quick."""
    values = {"concurrency": 4, "backoff_s": 0.01, "max_backoff_s": 0.05, "max_retries": 3, "timeout_s": 10.0}
    return ProfileConfig(
        engine="endpoint", model=MODEL, endpoint=EndpointConfig(url=server.url, **{**values, **endpoint})
    )


def prompts(num: int) -> list[Prompt]:
    system = {"role": "system", "content": "Describe."}
    return [
        Prompt("users", key, [], f"hash {key}", messages=(system, {"role": "user", "content": f"question {key}"}))
        for key in range(num)
    ]


def ask(num: int, config: ProfileConfig) -> dict[str, dict[str, Any]]:
    """Rows by the last word of their hash; refuses doubled ones."""
    tables = list(ask_endpoint(prompts(num), config))
    assert all(table.schema == ANSWERS for table in tables)
    rows = pa.concat_tables(tables).to_pylist()
    by_key = {row[PROMPT_HASH].removeprefix("hash "): row for row in rows}
    assert sorted(by_key, key=int) == [str(key) for key in range(num)], "every prompt has a row"
    assert len(by_key) == len(rows), "and only one"
    for row in rows:
        assert (row[TEXT] is None) != (row[ERROR] is None), row
    return by_key
