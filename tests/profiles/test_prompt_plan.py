"""What is asked: every prompt is looked up in the store, which is filled by hand. The tokenizer is the real one."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from small_prompts import hash_of

from sracl_dist.columns import ATTEMPT, ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.profiles import prompt_shards
from sracl_dist.profiles.plan import Plan, chosen_keys, first_keys, make_plan
from sracl_dist.profiles.prompt_shards import shards_of, write_shard
from sracl_dist.profiles.prompts import PromptWriter
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.store import STORED, AnswerStore
from sracl_dist.profiles.template import Chat
from sracl_dist.profiles.texts import TrainingTexts
from sracl_dist.run_folder import RunFolder, StageFolder

RULES = answer_rules([Chat(message="<data>\nTitle: $title\n</data>")])
SETTINGS = ProfileConfig(max_output_tokens=10, max_attempts=2)


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return RunFolder(str(tmp_path)).stage("profile")


@pytest.fixture
def store(folder: StageFolder) -> AnswerStore:
    return AnswerStore(folder, RULES)


def planned(folder: StageFolder, settings: ProfileConfig, texts: TrainingTexts, tokenizer: Any) -> Plan:
    """Write all prompts, two to a shard, and look them up."""
    writer, store = PromptWriter(settings, texts, tokenizer, "films"), AnswerStore(folder, RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_shards, "PROMPTS_PER_SHARD", 2)
        shards = shards_of(chosen_keys(settings, texts), settings.max_prompt_tokens)
    for shard in shards:
        write_shard(folder, writer, shard)
    return make_plan(settings, folder, shards, store, store.best())


def hashes_of(plan: Plan, kind: str) -> list[str]:
    hashes = [hash_.hex().ljust(32, "0") for hash_ in plan.hashes.tolist()]
    return hashes[: plan.num_items] if kind == "items" else hashes[plan.num_items :]


def fill(store: AnswerStore, *rows: dict[str, Any]) -> None:
    store.commit([pa.Table.from_pylist([dict.fromkeys(STORED.names) | row for row in rows], schema=STORED)])


def test_without_a_store_every_prompt_is_asked(folder: StageFolder, texts: TrainingTexts, tokenizer: Any) -> None:
    plan = planned(folder, SETTINGS, texts, tokenizer)
    assert [prompt.key for prompt in plan.to_ask] == [1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert [prompt.prompt_hash for prompt in plan.to_ask] == [*hashes_of(plan, "items"), *hashes_of(plan, "users")]
    estimate = plan.estimate
    assert (estimate.num_prompts, estimate.num_distinct, estimate.num_to_ask, estimate.num_answered) == (9, 9, 9, 0)
    assert estimate.num_prompt_tokens == sum(len(prompt.token_ids) for prompt in plan.to_ask)
    assert (estimate.max_output_tokens, estimate.expected_output_tokens, estimate.rate) == (90, None, None)
    assert [(prompt.kind, prompt.key) for prompt in plan.samples()[:2]] == [("items", 1), ("users", 0)]
    others = [
        prompt.num_tokens for prompt in plan.to_ask if (prompt.kind, prompt.key) not in (("items", 1), ("users", 0))
    ]
    assert plan.samples()[2].num_tokens == max(others)


def test_what_the_store_knows_is_not_asked_again(
    folder: StageFolder, texts: TrainingTexts, tokenizer: Any, store: AnswerStore
) -> None:
    items = hashes_of(planned(folder, SETTINGS, texts, tokenizer), "items")
    good = {ATTEMPT: 1, TEXT: "A film.", FINISH_REASON: "stop", NUM_OUTPUT_TOKENS: 4}
    fill(
        store,
        {PROMPT_HASH: items[0], **good},
        {PROMPT_HASH: items[1], ATTEMPT: 1, ERROR: "no memory"},
        {PROMPT_HASH: items[2], ATTEMPT: 1, ERROR: "no memory"},
        {PROMPT_HASH: items[2], ATTEMPT: 2, ERROR: "no memory"},
        {PROMPT_HASH: items[3], **good, TEXT: "Title: x"},
        {PROMPT_HASH: items[4], ATTEMPT: 1, TEXT: " ", FINISH_REASON: "length"},
        {PROMPT_HASH: hash_of("another template"), **good, NUM_OUTPUT_TOKENS: 1000},
    )
    plan = planned(folder, SETTINGS, texts, tokenizer)
    asked = {prompt.prompt_hash: prompt for prompt in plan.to_ask}
    assert set(asked) == {*items[1:2], *items[3:], *hashes_of(plan, "users")}
    assert [asked[items[place]].attempt for place in (1, 3, 4, 5)] == [2, 2, 2, 1]
    assert [asked[items[place]].wants_room for place in (1, 3, 4, 5)] == [False, False, True, False]
    estimate = plan.estimate
    assert (estimate.num_to_ask, estimate.num_answered, estimate.num_given_up) == (7, 1, 1)
    assert estimate.expected_output_tokens == 28, "4 tokens each, as the one answer"
    more = planned(folder, ProfileConfig(max_output_tokens=10, max_attempts=3), texts, tokenizer)
    assert items[2] in {prompt.prompt_hash for prompt in more.to_ask}


def test_equal_prompts_are_asked_once(folder: StageFolder, texts: TrainingTexts, tokenizer: Any) -> None:
    plan = planned(folder, ProfileConfig(items_per_user=1, max_items=0), texts, tokenizer)
    assert plan.num_items == 0
    hashes = hashes_of(plan, "users")
    assert hashes[0] == hashes[2] != hashes[1], "the latest training items are 4, 1 and 4"
    assert [prompt.key for prompt in plan.to_ask] == [0, 1]
    assert (plan.estimate.num_prompts, plan.estimate.num_distinct) == (3, 2)


def test_the_most_frequent_come_first() -> None:
    counts = np.array([3, 0, 5, 3, 1])
    assert first_keys(counts, None, least=0).tolist() == [0, 1, 2, 3, 4]
    assert first_keys(counts, None, least=1).tolist() == [0, 2, 3, 4]
    assert first_keys(counts, 2, least=1).tolist() == [0, 2], "ties go to the lower index"
    assert first_keys(counts, 0, least=1).tolist() == []
    assert first_keys(counts, 9, least=1).tolist() == [0, 2, 3, 4]
