"""A stage that is killed while it plans, asks or joins resumes where it was and brings the same tables, also on Ray."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from chat_server import MODEL, ChatServer, good
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.columns import ATTEMPT, ERROR, PROMPT_HASH, TEXT
from sracl_dist.profiles import generate, prompt_shards
from sracl_dist.profiles.language_model import model_and_tokenizer
from sracl_dist.profiles.plan import chosen_keys
from sracl_dist.profiles.prompt_shards import build_prompts, shards_of
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.store import STORED, AnswerStore
from sracl_dist.profiles.table import KINDS, num_profiles, read_profiles
from sracl_dist.profiles.template import load_chats
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.stages import STAGES, run_stage, stage_status
from sracl_dist.tasks import Tasks

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


def prepared(folder: Path, server: ChatServer, *overrides: str) -> tuple[Any, RunFolder]:
    write_log(folder)
    config = small_config(
        folder,
        "profile.engine=endpoint",
        f"profile.model={MODEL}",
        f"profile.endpoint.url={server.url}",
        "profile.endpoint.concurrency=2",
        "profile.commit_interval_s=0",
        *overrides,
    )
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return config, run


def profile(config: Any, run: RunFolder) -> Any:
    return run_stage(STAGES["profile"], config, run, stage_status(STAGES["profile"], config, run).draft)


def tables(run: RunFolder) -> list[pa.Table]:
    return [run.stage("profile").read_shards(f"{kind}/") for kind in ("items", "users")]


def num_asked_at_rest(server: ChatServer) -> int:
    """Requests so far, once those that a killed stage left on their way have come."""
    num_asked = -1
    while num_asked != len(server.asked()):
        num_asked = len(server.asked())
        time.sleep(0.3)
    return num_asked


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
    num_asked = num_asked_at_rest(server)
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


@pytest.mark.fault
@pytest.mark.parametrize(("die_at", "number"), [("items", 2), ("users", 4)])
def test_tables_of_other_answers_are_written_again(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch, die_at: str, number: int
) -> None:
    server.behaviour = lambda message, _: good("Title: x" if len(message) % 2 else "A film.")
    config, run = prepared(tmp_path, server, "profile.max_attempts=1", "profile.max_failed_share=1")
    with writes(monkeypatch, die_at, number) as before, pytest.raises(Killed):
        profile(config, run)
    folder = run.stage("profile")
    stored = folder.read_shards("generated/")
    failed = stored.filter(pc.equal(stored[TEXT], "Title: x"))
    committed = folder.read_shards("items/")
    assert 0 < failed.num_rows < stored.num_rows
    assert 0 < committed[ERROR].null_count < committed.num_rows, "a table was made from failures"

    answer = {TEXT: "A book.", ATTEMPT: 2}
    rows = pa.Table.from_pylist([row | answer for row in failed.to_pylist()], schema=STORED)
    folder.write_table("generated/99999999999999999999.parquet", rows)
    with writes(monkeypatch) as after:
        result = profile(config, run)
    assert result.details["num_generated"] == result.details["num_failed"] == 0
    changed = set(failed[PROMPT_HASH].to_pylist())
    for table in tables(run):
        assert table[TEXT].to_pylist() == [
            "A book." if hash_ in changed else "A film." for hash_ in table[PROMPT_HASH].to_pylist()
        ]
    assert after["items"] + after["users"] > 9 - before["items"] - before["users"], "some of them were there"

    with writes(monkeypatch) as again:
        profile(config, run)
    assert again["items"] == again["users"] == 0, "tables of the same answers are kept"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_workers_of_a_cluster_write_what_one_process_writes(
    tmp_path: Path, server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = prepared(tmp_path, server)
    _, tokenizer = model_and_tokenizer(config.profile)
    shards = shards_of(chosen_keys(config.profile, load_training_texts(run)), config.profile.max_prompt_tokens)
    assert len(shards) == 9
    several = {}
    for num_workers in (0, 2):
        folder = RunFolder(str(tmp_path / f"by {num_workers}")).stage("profile")
        build_prompts(Tasks(num_workers=num_workers), folder, shards, config, run, tokenizer)
        several[num_workers] = [folder.read_shards(f"prompts/{kind}/") for kind in KINDS]
    assert all(own.equals(other) for own, other in zip(several[0], several[2], strict=True))
    assert [table.num_rows for table in several[0]] == [NUM_ITEMS, NUM_USERS]

    monkeypatch.setattr(generate, "LOCAL_PROMPTS", 0)
    with writes(monkeypatch) as here:
        assert profile(config, run).details["num_failed"] == 0
    assert here.keys() <= {"generated"}, "prompts and tables are written by other processes"
    folder, by_workers = run.stage("profile"), tables(run)
    folder.write_table("generated/99999999999999999999.parquet", folder.read_shards("generated/"))
    store = AnswerStore(folder, answer_rules(load_chats(config.profile, "films").values()))
    best, by_cluster = store.best(), store.best(Tasks(num_workers=2))
    for name in ("hashes", "files", "rows", "attempts", "is_failure", "num_output_tokens", "num_attempts"):
        assert getattr(best, name).tolist() == getattr(by_cluster, name).tolist(), name
    assert (len(best.names), len(best.hashes)) == (2, NUM_DISTINCT)

    monkeypatch.setattr(generate, "LOCAL_PROMPTS", 1000)
    folder.delete(name for kind in KINDS for name in folder.files(f"{kind}/"))
    with writes(monkeypatch) as here:
        profile(config, run)
    assert (here["prompts"], here["items"], here["users"]) == (9, 4, 5)
    assert all(own.equals(other) for own, other in zip(tables(run), by_workers, strict=True))


def test_profiles_are_read_by_ranges(tmp_path: Path, server: ChatServer) -> None:
    config, run = prepared(tmp_path, server)
    profile(config, run)
    users = tables(run)[1]["text"].to_pylist()
    for start, stop in ((0, NUM_USERS), (3, 7), (5, 5), (23, 30)):
        expected = users[start:stop] + [None] * (stop - max(start, NUM_USERS))
        assert read_profiles(run, "users", start, stop) == expected
    assert num_profiles(run, "items") == NUM_ITEMS
    assert num_profiles(run, "users") == NUM_USERS
