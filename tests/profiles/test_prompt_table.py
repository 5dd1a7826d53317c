"""Packed prompts come back as they were."""

import gc
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sracl_dist.profiles import prompt_table
from sracl_dist.profiles.prompt_table import PromptTable
from sracl_dist.profiles.prompts import Prompt

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PROMPTS = st.builds(
    Prompt,
    kind=st.sampled_from(["items", "users"]),
    key=st.integers(0, 2**40),
    token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=5),
    prompt_hash=TEXT,
    answer_start=TEXT,
    messages=st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), max_size=2).map(tuple),
    num_estimated_tokens=st.integers(0, 2**20),
    attempt=st.integers(1, 9),
    num_failures=st.integers(0, 8),
    wants_room=st.booleans(),
)


@given(st.lists(PROMPTS, max_size=20), st.sampled_from([0, 900, 10**9]))
@settings(deadline=None)
def test_prompts_come_back_as_they_were(prompts: list[Prompt], max_bytes_in_memory: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_table, "ROWS_PER_BATCH", 4)
        patch.setattr(prompt_table, "MAX_BYTES_IN_MEMORY", max_bytes_in_memory)
        table = PromptTable()
        for number, prompt in enumerate(prompts):
            table.append(prompt)
            assert table[number] == prompt, "also while more are added"
        assert len(table) == len(prompts)
        assert list(table) == prompts
        later = {each.prompt_hash: (each.attempt, each.num_failures) for each in prompts if each.attempt > 1}
        assert table.later_attempts() == later
        assert table[2:7] == prompts[2:7]
        assert table[:] == prompts
        if prompts:
            assert table[-1] == prompts[-1]
            assert list(table.part(1, len(prompts))) == prompts[1:]
        with pytest.raises(IndexError):
            table[len(prompts)]


def test_what_is_on_disk_goes_with_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_table, "MAX_BYTES_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    table = PromptTable()
    for key in range(2 * prompt_table.ROWS_PER_BATCH):
        table.append(Prompt("items", key, [key], f"{key:032x}"))
    assert len(list(tmp_path.rglob("*.arrow"))) == 2
    assert table[prompt_table.ROWS_PER_BATCH].key == prompt_table.ROWS_PER_BATCH
    del table
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_a_prompt_of_300_tokens_takes_little_more_than_its_tokens() -> None:
    num_prompts = 2 * prompt_table.ROWS_PER_BATCH
    table = PromptTable()
    tracemalloc.start()
    for key in range(num_prompts):
        table.append(Prompt("items", key, list(range(1000, 1300)), f"{key:032x}"))
    objects, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    packed = sum(batch.nbytes for batch in table._rows._batches)
    assert objects < 50 * num_prompts, "nothing of the packed prompts is left as objects"
    assert packed < (4 * 300 + 120) * num_prompts
