"""A stage that is killed while it plans, asks or joins goes on where it was, and brings the same tables."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from chat_server import MODEL, ChatServer, good
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.columns import PROMPT_HASH
from sracl_dist.profiles import prompt_shards
from sracl_dist.profiles.table import num_profiles, read_profiles
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.stages import STAGES, run_stage, stage_status

NUM_DISTINCT = NUM_ITEMS + NUM_USERS - 1


class Killed(BaseException):
    """In place of a signal, at a chosen place."""


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer(lambda message, _: good(f"About {hash(message)}.")).running() as chat:
        yield chat


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_shards, "PROMPTS_PER_SHARD", 5)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def prepared(folder: Path, server: ChatServer) -> tuple[Any, RunFolder]:
    write_log(folder)
    config = small_config(
        folder,
        "profile.engine=endpoint",
        f"profile.model={MODEL}",
        f"profile.endpoint.url={server.url}",
        "profile.endpoint.concurrency=2",
        "profile.commit_interval_s=0",
    )
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return config, run


def profile(config: Any, run: RunFolder) -> Any:
    return run_stage(STAGES["profile"], config, run, stage_status(STAGES["profile"], config, run).draft)


def tables(run: RunFolder) -> list[pa.Table]:
    return [run.stage("profile").read_shards(f"{kind}/") for kind in ("items", "users")]


@contextlib.contextmanager
def writes(monkeypatch: pytest.MonkeyPatch, die_at: str = "", number: int = -1) -> Iterator[Counter[str]]:
    """Counts the tables that are written by their first folder; the one with this number there is not any more."""
    written: Counter[str] = Counter()
    write = StageFolder.write_table

    def watched(self: StageFolder, name: str, *rest: Any) -> None:
        kind = name.split("/")[0]
        if kind == die_at and written[kind] == number:
            raise Killed
        written[kind] += 1
        write(self, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(StageFolder, "write_table", watched)
        yield written


@pytest.mark.fault
@pytest.mark.parametrize(
    ("die_at", "number"), [("prompts", 3), ("generated", 1), ("generated", 9), ("items", 2), ("users", 0), ("users", 4)]
)
def test_nothing_is_done_twice(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, die_at: str, number: int
) -> None:
    config, run = prepared(tmp_path, server)
    with writes(monkeypatch, die_at, number) as before, pytest.raises(Killed):
        profile(config, run)
    folder = run.stage("profile")
    committed = folder.read_shards("generated/")[PROMPT_HASH].to_pylist() if folder.files("generated/") else []
    assert before[die_at] == number
    num_asked = len(server.asked())
    with writes(monkeypatch) as after:
        result = profile(config, run)
    for kind, num_files in (("prompts", 9), ("items", 4), ("users", 5)):
        assert before[kind] + after[kind] == num_files, kind
    assert len(server.asked()) - num_asked == result.details["num_generated"] == NUM_DISTINCT - len(set(committed))
    assert result.details["num_failed"] == 0
    assert sorted(folder.read_shards("generated/")[PROMPT_HASH].to_pylist()) == sorted(
        {hash_ for table in tables(run) for hash_ in table[PROMPT_HASH].to_pylist()}
    )
    assert not folder.files("prompts/")
    killed = tables(run)

    folder.delete(name for kind in ("items", "users") for name in folder.files(f"{kind}/"))
    profile(config, run)
    assert all(own.equals(other) for own, other in zip(tables(run), killed, strict=True))
    assert [table.num_rows for table in killed] == [NUM_ITEMS, NUM_USERS]


def test_profiles_are_read_by_ranges(tmp_path: Path, server: ChatServer) -> None:
    config, run = prepared(tmp_path, server)
    profile(config, run)
    users = tables(run)[1]["text"].to_pylist()
    for start, stop in ((0, NUM_USERS), (3, 7), (5, 5), (23, 30)):
        expected = users[start:stop] + [None] * (stop - max(start, NUM_USERS))
        assert read_profiles(run, "users", start, stop) == expected
    assert num_profiles(run, "items") == NUM_ITEMS
    assert num_profiles(run, "users") == NUM_USERS
