"""profile with the real language model through Ray Data and vLLM: only what is missing is asked, failures are rows."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from small_prompts import hash_of, name_of, to_ask
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.cluster import Cluster
from sracl_dist.columns import (
    ATTEMPT,
    ERROR,
    FINISH_REASON,
    FLAWS,
    KEY,
    MODEL,
    NUM_OUTPUT_TOKENS,
    NUM_PROMPT_TOKENS,
    PROMPT_HASH,
    TEXT,
)
from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.profiles import generate
from sracl_dist.profiles.answers import ANSWERS
from sracl_dist.profiles.asking import answer_all
from sracl_dist.profiles.counts import counts_of
from sracl_dist.profiles.generate import estimate_profiles, generate_profiles
from sracl_dist.profiles.hashes import packed
from sracl_dist.profiles.joining import ROWS, join_answers
from sracl_dist.profiles.ledger import PromptSet
from sracl_dist.profiles.prompt_shards import SCHEMA
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.template import Chat, Turn
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, run_stage, stage_status

real_engine = pytest.mark.usefixtures("ray_cluster")
TURN = Turn(fields={}, answer="It is a film: a worked example.")
RULES = answer_rules([Chat(message="<data>\nTitle: $title\n</data>", turns=(TURN,))])


def prepared(folder: Path, *overrides: str) -> tuple[Config, RunFolder]:
    write_log(folder)
    config = small_config(folder, *overrides)
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return config, run


@pytest.mark.ray
@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.fault
@real_engine
def test_only_what_is_missing_is_generated(tmp_path: Path) -> None:
    config, run = prepared(tmp_path, "profile.max_items=3", "profile.max_users=4")
    first = generate_profiles(config, run)
    users = run.stage("profile").read_shards("users/")
    assert first.rows == {"items": 3, "users": 4}
    assert first.details["num_generated"] == 3 + len(set(users[PROMPT_HASH].to_pylist()))
    assert users[ERROR].null_count == 4
    assert all(users[TEXT].to_pylist())
    assert all(1 <= num <= 12 for num in users[NUM_OUTPUT_TOKENS].to_pylist())
    assert set(users[FINISH_REASON].to_pylist()) <= {"stop", "length"}
    cut = ["truncated" in flaws for flaws in users[FLAWS].to_pylist()]
    assert cut == [reason == "length" for reason in users[FINISH_REASON].to_pylist()]
    assert first.details["output_tokens_per_s"] is None, "so few answers say nothing"
    assert "answers generated, " in first.summary[0]

    again = generate_profiles(config, run)
    assert again.details["num_generated"] == 0
    assert run.stage("profile").read_shards("users/").equals(users)

    failed_hash = users[PROMPT_HASH][0].as_py()
    store = run.stage("profile").read_shards("generated/")
    row = dict.fromkeys(store.column_names) | {PROMPT_HASH: failed_hash, ATTEMPT: 1, ERROR: "the engine died"}
    kept = store.filter(pa.compute.not_equal(store[PROMPT_HASH], failed_hash))
    run.stage("profile").delete(run.stage("profile").files("generated/"))
    run.stage("profile").write_table("generated/0.parquet", kept)
    run.stage("profile").write_table("generated/1.parquet", pa.Table.from_pylist([row], schema=store.schema))

    everybody = small_config(tmp_path)
    last = generate_profiles(everybody, run)
    table = run.stage("profile").read_shards("users/")
    assert last.rows == {"items": NUM_ITEMS, "users": NUM_USERS}
    assert table[KEY].to_pylist() == list(range(NUM_USERS))
    assert table[ERROR].null_count == NUM_USERS, "the failed answer was asked again"
    hashes = [
        *table[PROMPT_HASH].to_pylist(),
        *run.stage("profile").read_shards("items/")[PROMPT_HASH].to_pylist(),
    ]
    assert hashes[0] == hashes[1], "users with the same history share one prompt"
    assert last.details["num_generated"] == len(set(hashes)) - kept.num_rows
    before = dict(zip(users[KEY].to_pylist(), users[TEXT].to_pylist(), strict=True))
    after = dict(zip(table[KEY].to_pylist(), table[TEXT].to_pylist(), strict=True))
    unchanged = [key for key in before if users[PROMPT_HASH][list(before).index(key)].as_py() != failed_hash]
    assert all(before[key] == after[key] for key in unchanged)


def too_long(config: Config) -> list[int]:
    return [100] * (config.profile.max_prompt_tokens + config.profile.max_output_tokens + 1)


@pytest.mark.ray
@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.fault
@real_engine
def test_a_failing_prompt_is_asked_twice_and_is_a_row(
    tmp_path: Path, ray_cluster: Cluster, language_model: str
) -> None:
    from sracl_dist.profiles.engine import generate_answers

    config, run = prepared(tmp_path)
    token_ids = {"short": [100, 200, 300], "long": too_long(config), "other": [300, 200, 100]}
    prompts, ledger = to_ask(
        run.stage("profile"),
        [Prompt("users", key, token_ids[name], hash_of(name)) for key, name in enumerate(token_ids)],
    )
    asked: list[list[Prompt]] = []

    def ask(prompts: PromptSet) -> Iterator[pa.Table]:
        asked.append(list(prompts))
        return generate_answers(prompts, language_model, config.profile, ray_cluster, set())

    store = AnswerStore(run.stage("profile"), RULES)
    assert answer_all(prompts, ledger, ask, store, config.profile, RULES) == 1
    assert [[(name_of(prompt.prompt_hash), prompt.attempt) for prompt in prompts] for prompts in asked] == [
        [("short", 1), ("long", 1), ("other", 1)],
        [("long", 2)],
    ]
    rows = prompt_rows("short", "long", "other")
    table = join_answers(rows, run.stage("profile").read_rows(*best_of(store), ANSWERS.names), "m", RULES)
    texts, errors = table[TEXT].to_pylist(), table[ERROR].to_pylist()
    assert texts[0]
    assert texts[2]
    assert texts[1] is None
    assert "maximum" in errors[1]
    assert errors[0] is errors[2] is None
    with pytest.raises(StageError, match=r"1 of 3 prompts have no answer \(1 times: .*maximum"):
        counts_of([table]).refuse_failures(0.1)


def engine_processes() -> set[int]:
    """Engines of vLLM below this process."""
    parents, engines = {}, set()
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            pid = int(folder.name)
            parents[pid] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if b"VLLM::EngineCore" in (folder / "cmdline").read_bytes():
                engines.add(pid)

    def is_own(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_own(parents[pid]))

    return {pid for pid in engines if is_own(pid)}


@pytest.mark.ray
@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.fault
@real_engine
def test_engines_that_are_killed_are_replaced_and_no_answer_is_missing(
    tmp_path: Path, ray_cluster: Cluster, language_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The engine is killed, and so is the one that Ray starts in its place, so that the prompts are asked anew."""
    from sracl_dist.profiles.engine import generate_answers

    config, run = prepared(
        tmp_path, "profile.max_output_tokens=64", "profile.batch_rows=8", "profile.max_running_prompts=8"
    )
    asked = [Prompt("users", key, [100 + key, 200, 300], f"{key:032x}") for key in range(64)]
    prompts, ledger = to_ask(run.stage("profile"), asked)
    killed: set[int] = set()

    def ask(prompts: PromptSet) -> Iterator[pa.Table]:
        for batch in generate_answers(prompts, language_model, config.profile, ray_cluster, set()):
            for pid in engine_processes() - killed if len(killed) < 2 else ():
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            yield batch

    store = AnswerStore(run.stage("profile"), RULES)
    answer_all(prompts, ledger, ask, store, config.profile, RULES)
    assert len(killed) == 2
    assert "profile: the engine died; asking" in capsys.readouterr().err
    best = store.best()
    assert best.hashes.tolist() == packed(pa.array([f"{key:032x}" for key in range(64)])).tolist()
    assert best.is_failure.sum() <= 2, "an empty answer of the small model is no loss"


def answers_of(*rows: dict[str, Any]) -> pa.Table:
    defaults = dict.fromkeys(ANSWERS.names) | {FINISH_REASON: "stop", NUM_OUTPUT_TOKENS: 9}
    return pa.Table.from_pylist([defaults | row for row in rows], schema=ANSWERS)


def prompt_rows(*names: str) -> pa.Table:
    """What the tables take over of prompts."""
    rows = [{KEY: key, PROMPT_HASH: hash_of(name), NUM_PROMPT_TOKENS: 30} for key, name in enumerate(names, start=1)]
    return pa.Table.from_pylist(rows, schema=pa.schema([SCHEMA.field(name) for name in ROWS]))


def best_of(store: AnswerStore) -> tuple[str, NDArray[np.int64]]:
    """The store's only file, and the rows in it that count."""
    store.compact()
    best = store.best()
    (name,) = best.names
    return name, np.sort(best.rows).astype(np.int64)


LOOP = "a film, a film, a film, a film"
BEST = answers_of(
    {PROMPT_HASH: hash_of("good"), TEXT: "A film.", NUM_PROMPT_TOKENS: 31},
    {PROMPT_HASH: hash_of("loop"), TEXT: LOOP, FINISH_REASON: "length"},
    {PROMPT_HASH: hash_of("echo"), TEXT: "Title: x"},
    {PROMPT_HASH: hash_of("empty"), TEXT: "", FINISH_REASON: "length"},
    {
        PROMPT_HASH: hash_of("long"),
        ERROR: "too long",
        FINISH_REASON: None,
        NUM_OUTPUT_TOKENS: None,
        NUM_PROMPT_TOKENS: 0,
    },
    {PROMPT_HASH: hash_of("of old"), ERROR: "the answer is empty", FINISH_REASON: "stop"},
    {PROMPT_HASH: hash_of("nobody's"), TEXT: "A book."},
    {PROMPT_HASH: hash_of("thinks"), TEXT: "<think>Title: x? No.</think>A film."},
    {PROMPT_HASH: hash_of("thinks on"), TEXT: "<think>Title: x?", FINISH_REASON: "length"},
    {PROMPT_HASH: hash_of("refuses"), TEXT: "I'm sorry, but I can't."},
    {PROMPT_HASH: hash_of("foreign"), TEXT: "\u7535\u5f71"},
    {PROMPT_HASH: hash_of("copies"), TEXT: "It is a film, a worked example."},
)


def joined(*names: str) -> pa.Table:
    return join_answers(prompt_rows(*names), BEST, "m", RULES)


def test_a_row_per_prompt_with_its_answer_or_its_error() -> None:
    table = joined("good", "loop", "echo", "empty", "long", "unasked", "of old", "good")
    assert table[KEY].to_pylist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert table[TEXT].to_pylist() == ["A film.", "a film", None, None, None, None, None, "A film."]
    assert table[ERROR].to_pylist() == [
        None,
        None,
        "the answer is off-format: it holds 'Title:'",
        "the answer is empty",
        "too long",
        "no answer was received",
        "the answer is empty",
        None,
    ]
    assert table[FLAWS].to_pylist() == [
        [],
        ["truncated", "repetitive"],
        ["off-format"],
        ["empty", "truncated"],
        [],
        [],
        ["empty"],
        [],
    ]
    assert table[NUM_PROMPT_TOKENS].to_pylist() == [31, 30, 30, 30, 30, 30, 30, 31], "the engine's count, where it has"
    assert table[MODEL].to_pylist() == ["m"] * 8
    assert counts_of([table.slice(0, 4), table.slice(4)]).details == {
        "num_failed": 5,
        "num_empty": 2,
        "num_thought": 0,
        "num_refusal": 0,
        "num_language": 0,
        "num_copy": 0,
        "num_truncated": 2,
        "num_repetitive": 1,
        "num_off_format": 1,
        "num_prompt_tokens": 242,
        "num_output_tokens": 54,
    }


def test_thoughts_are_cut_off_and_what_describes_nothing_is_a_failure() -> None:
    table = joined("thinks", "thinks on", "refuses", "foreign", "copies")
    assert table[TEXT].to_pylist() == ["A film.", None, None, None, None]
    assert table[FLAWS].to_pylist() == [[], ["thought", "truncated"], ["refusal"], ["language"], ["copy"]]
    assert table[ERROR].null_count == 1
    totals = counts_of([table]).details
    assert totals["num_failed"] == 4
    assert [totals[f"num_{flaw}"] for flaw in ("thought", "refusal", "language", "copy")] == [1, 1, 1, 1]


def test_without_prompts_there_are_no_rows() -> None:
    table = joined()
    assert (table.num_rows, table.schema.names) == (0, joined("good").schema.names)
    assert counts_of([table, table]).details["num_output_tokens"] == 0
    counts_of([table]).refuse_failures(0.0)


def test_too_many_failures_stop_the_stage_with_the_commonest_reasons() -> None:
    table = joined("good", "good", "echo", "long", "long")
    counts_of([table]).refuse_failures(0.6)
    with pytest.raises(StageError) as caught:
        counts_of([table.slice(0, 2), table.slice(2)]).refuse_failures(0.59)
    assert str(caught.value).startswith(
        "3 of 5 prompts have no answer (2 times: too long; 1 times: the answer is off-format: it holds 'Title:');"
    )


@pytest.mark.llm
def test_a_dry_run_tells_the_cost_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, run = prepared(tmp_path, "profile.max_items=3", "profile.max_users=4")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    estimate_profiles(config, run)
    told = capsys.readouterr().err
    assert "profile: 7 prompts, 7 distinct: 0 answered before, 7 to ask\n" in told
    assert "profile: at most 84 output tokens, unknown how many are to be expected\n" in told
    assert "no rate is known yet" in told
    assert [line.split()[4:6] for line in told.splitlines() if "the prompt of" in line] == [
        ["items", "1,"],
        ["users", "2,"],
        ["users", "4,"],
    ]
    assert told.count("    <|im_start|>system\n") == 3
    assert told.endswith("profile: nothing was asked; leave out --dry-run to start\n")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.llm
def test_the_dry_run_of_a_large_log_looks_at_some_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "ESTIMATED_PROMPTS", 4)
    config, run = prepared(tmp_path, "profile.max_items=3", "profile.max_users=4")
    capsys.readouterr()
    estimate_profiles(config, run)
    told = capsys.readouterr().err
    assert "profile: 7 prompts, estimated from 4 of them, 7 distinct: 0 answered before, 7 to ask\n" in told
    assert "profile: at most 84 output tokens" in told
