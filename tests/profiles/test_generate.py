"""profile with the real language model through Ray Data and vLLM: only what is missing is asked, failures are rows."""

from pathlib import Path

import pyarrow as pa
import pytest
from small_run import NUM_ITEMS, NUM_USERS, small_config, write_log

from sracl_dist.artifacts import RunFolder
from sracl_dist.cluster import Cluster
from sracl_dist.columns import ERROR, FINISH_REASON, KEY, NUM_OUTPUT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.profiles import generate
from sracl_dist.profiles.generate import generate_profiles
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.stages import STAGES, run_stage, stage_status

pytestmark = [pytest.mark.ray, pytest.mark.llm, pytest.mark.usefixtures("ray_cluster")]


def prepared(folder: Path, *overrides: str) -> tuple[Config, RunFolder]:
    write_log(folder)
    config = small_config(folder, *overrides)
    run = RunFolder(config.run.dir)
    run_stage(STAGES["prepare"], config, run, stage_status(STAGES["prepare"], config, run).draft)
    return config, run


def test_only_what_is_missing_is_generated(tmp_path: Path) -> None:
    config, run = prepared(tmp_path, "profile.max_items=3", "profile.max_users=4")
    first = generate_profiles(config, run)
    users = run.stage("profile").read_table("users.parquet")
    assert first.rows == {"items": 3, "users": 4}
    assert first.details["num_generated"] == 3 + len(set(users[PROMPT_HASH].to_pylist()))
    assert users[ERROR].null_count == 4
    assert all(users[TEXT].to_pylist())
    assert all(1 <= num <= 12 for num in users[NUM_OUTPUT_TOKENS].to_pylist())
    assert set(users[FINISH_REASON].to_pylist()) <= {"stop", "length"}

    again = generate_profiles(config, run)
    assert again.details["num_generated"] == 0
    assert run.stage("profile").read_table("users.parquet").equals(users)

    failed_hash = users[PROMPT_HASH][0].as_py()
    store = run.stage("profile").read_shards("generated/")
    row = dict.fromkeys(store.column_names) | {PROMPT_HASH: failed_hash, ERROR: "the engine died"}
    kept = store.filter(pa.compute.not_equal(store[PROMPT_HASH], failed_hash))
    run.stage("profile").delete(run.stage("profile").files("generated/"))
    run.stage("profile").write_table("generated/0.parquet", kept)
    run.stage("profile").write_table("generated/1.parquet", pa.Table.from_pylist([row], schema=store.schema))

    everybody = small_config(tmp_path)
    last = generate_profiles(everybody, run)
    table = run.stage("profile").read_table("users.parquet")
    assert last.rows == {"items": NUM_ITEMS, "users": NUM_USERS}
    assert table[KEY].to_pylist() == list(range(NUM_USERS))
    assert table[ERROR].null_count == NUM_USERS, "the failed answer was asked again"
    hashes = [
        *table[PROMPT_HASH].to_pylist(),
        *run.stage("profile").read_table("items.parquet")[PROMPT_HASH].to_pylist(),
    ]
    assert hashes[0] == hashes[1], "users with the same history share one prompt"
    assert last.details["num_generated"] == len(set(hashes)) - kept.num_rows
    before = dict(zip(users[KEY].to_pylist(), users[TEXT].to_pylist(), strict=True))
    after = dict(zip(table[KEY].to_pylist(), table[TEXT].to_pylist(), strict=True))
    unchanged = [key for key in before if users[PROMPT_HASH][list(before).index(key)].as_py() != failed_hash]
    assert all(before[key] == after[key] for key in unchanged)


def test_a_failing_prompt_is_a_row_and_too_many_stop_the_stage(
    tmp_path: Path, ray_cluster: Cluster, language_model: str
) -> None:
    from sracl_dist.profiles.engine import generate_answers

    config, _run = prepared(tmp_path)
    too_long = [100] * (config.profile.max_prompt_tokens + config.profile.max_output_tokens + 1)
    prompts = [
        Prompt("users", 0, [100, 200, 300], "short"),
        Prompt("users", 1, too_long, "long"),
        Prompt("users", 2, [300, 200, 100], "other"),
    ]
    batches = list(generate_answers(prompts, language_model, config.profile, ray_cluster, set()))
    answers = {row[PROMPT_HASH]: row for row in pa.concat_tables(batches).to_pylist()}
    assert set(answers) == {"short", "long", "other"}
    assert answers["long"][TEXT] is None
    assert "maximum" in answers["long"][ERROR]
    assert answers["short"][ERROR] is None
    assert answers["other"][TEXT]

    tables = {"users": generate._profiles(prompts, "users", pa.concat_tables(batches), "m")}
    generate._refuse_failures(tables.values(), 0.34)
    with pytest.raises(StageError, match=r"1 of 3 prompts have no answer \(1 times: .*maximum"):
        generate._refuse_failures(tables.values(), 0.1)
