"""Prompts that lie in shards come back as they were, all or some of them, and take little memory meanwhile."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peak_memory import peak_growth
from small_prompts import to_ask

from sracl_dist.profiles import prompt_shards
from sracl_dist.profiles.prompt_shards import PromptPiece, PromptShard, shards_of, write_prompts
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.run_folder import RunFolder

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PROMPT = st.builds(
    Prompt,
    kind=st.sampled_from(["items", "users"]),
    key=st.integers(0, 2**40),
    token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=5),
    prompt_hash=st.integers(0, 2**128 - 1).map(lambda number: f"{number:032x}"),
    answer_start=TEXT,
    messages=st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), max_size=2).map(tuple),
    num_estimated_tokens=st.integers(1, 2**20),
    attempt=st.integers(1, 9),
    num_failures=st.integers(0, 8),
    wants_room=st.booleans(),
)


def seen(prompts: list[Prompt]) -> list[tuple[object, ...]]:
    """What matters of prompts; the estimate does not where the tokens are there."""
    names = ("kind", "key", "token_ids", "prompt_hash", "answer_start", "messages", "attempt", "num_failures")
    return [(*(getattr(prompt, name) for name in names), prompt.wants_room, prompt.num_tokens) for prompt in prompts]


@settings(deadline=None, max_examples=30)
@given(
    st.lists(PROMPT, max_size=12, unique_by=(lambda prompt: prompt.key, lambda prompt: prompt.prompt_hash)),
    st.sets(st.integers(0, 11)),
)
def test_prompts_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[Prompt], some: set[int]
) -> None:
    prompts.sort(key=lambda prompt: (prompt.kind, prompt.key))
    folder = RunFolder(str(tmp_path_factory.mktemp("run"))).stage("profile")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_shards, "ROWS_AT_ONCE", 2)
        prompt_set, _ = to_ask(folder, prompts)
        assert len(prompt_set) == len(prompts)
        assert seen(list(prompt_set)) == seen(prompts)
        assert seen(list(prompt_set.part(1, 7))) == seen(prompts[1:7])
        rows = np.array(sorted(own for own in some if own < len(prompts)), np.int64)
        assert seen(list(prompt_set.of_rows(rows))) == seen([prompts[row] for row in rows])


def test_shards_are_named_by_their_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_shards, "PROMPTS_PER_SHARD", 2)
    shards = shards_of({"items": np.array([2, 5, 9]), "users": np.array([], np.int64)}, 100)
    assert [shard.keys.tolist() for shard in shards] == [[2, 5], [9]]
    assert [shard.answers.name for shard in shards] == [
        "items/000000000002-000000000006.parquet",
        "items/000000000009-000000000010.parquet",
    ]
    assert shards[1].prompts.name == "prompts/items/000000000009-000000000010.parquet"


@pytest.mark.parametrize(("max_prompt_tokens", "lengths"), [(512, [4, 1]), (513, [3, 2]), (4096, [1] * 5)])
def test_shards_of_long_prompts_have_fewer(
    monkeypatch: pytest.MonkeyPatch, max_prompt_tokens: int, lengths: list[int]
) -> None:
    monkeypatch.setattr(prompt_shards, "TOKENS_PER_SHARD", 4 * 512)
    shards = shards_of({"items": np.arange(1, 6), "users": np.array([], np.int64)}, max_prompt_tokens)
    assert [shard.num_prompts for shard in shards] == lengths


def test_going_through_many_prompts_takes_the_memory_of_few(tmp_path: Path) -> None:
    folder, num_tokens = RunFolder(str(tmp_path)).stage("profile"), 300
    shard = PromptShard(kind="users", keys=np.arange(20_000))

    def prompts():  # type: ignore[no-untyped-def]
        for key in range(shard.num_prompts):
            yield Prompt("users", key, list(range(1000, 1000 + num_tokens)), f"{key:032x}")

    packed_bytes = 4 * num_tokens * shard.num_prompts
    assert peak_growth(lambda: write_prompts(folder, shard, prompts())) < 5 * packed_bytes, "objects take 12 times"
    piece = PromptPiece(
        shard=shard.prompts,
        kind="users",
        rows=np.arange(shard.num_prompts),
        attempts=np.ones(shard.num_prompts, np.int32),
        num_failures=np.zeros(shard.num_prompts, np.int32),
        wants_room=np.zeros(shard.num_prompts, np.bool_),
    )
    assert peak_growth(lambda: deque(piece.read(folder), maxlen=1)) < 5 * packed_bytes
    assert sum(1 for _ in piece.read(folder)) == shard.num_prompts
