"""Asking, with an engine that answers as it is told: retries, attempts, commits, and an engine that stalls."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
from fake_engine import BROKEN, CUT, DOWN, ECHO, EMPTY, GOOD, FakeEngine, Reply, prompts_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sracl_dist.columns import ATTEMPT, ERROR, PROMPT_HASH
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import StageError
from sracl_dist.profiles.answers import EngineDied
from sracl_dist.profiles.asking import answer_all
from sracl_dist.profiles.attempts import Failure, next_attempt
from sracl_dist.profiles.prompt_table import PromptTable
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.rate import rate_name
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.template import Chat
from sracl_dist.run_folder import RunFolder

RULES = answer_rules([Chat(message="<data>\nTitle: $title\n</data>")])


def table_of(prompts: Sequence[Prompt]) -> PromptTable:
    table = PromptTable()
    for prompt in prompts:
        table.append(prompt)
    return table


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path))


@pytest.fixture
def store(run: RunFolder) -> AnswerStore:
    return AnswerStore(run.stage("profile"), RULES)


def attempts_in(run: RunFolder) -> list[tuple[str, int]]:
    rows = run.stage("profile").read_shards("generated/").to_pylist()
    return sorted((row[PROMPT_HASH], row[ATTEMPT]) for row in rows)


def errors_in(store: AnswerStore) -> dict[str, str | None]:
    return {row[PROMPT_HASH]: row[ERROR] for row in store.best().to_pylist()}


def test_failures_are_asked_once_more(run: RunFolder, store: AnswerStore) -> None:
    first: dict[str, Reply] = {"a": GOOD, "b": EMPTY, "c": CUT, "d": ECHO, "e": BROKEN}
    engine = FakeEngine(lambda prompt: first[prompt.prompt_hash] if prompt.attempt == 1 else GOOD)
    num_retried = answer_all(table_of(prompts_of("a", "b", "c", "d", "e")), engine, store, ProfileConfig(), RULES)
    assert num_retried == 4
    assert [prompt.prompt_hash for prompt in engine.asked[1]] == ["b", "c", "d", "e"]
    assert [prompt.attempt for prompt in engine.asked[1]] == [2, 2, 2, 2]
    assert [prompt.wants_room for prompt in engine.asked[1]] == [False, True, False, False]
    assert errors_in(store) == dict.fromkeys("abcde")
    assert attempts_in(run) == [("a", 1), *((hash_, attempt) for hash_ in "bcde" for attempt in (1, 2))]


@pytest.mark.parametrize(("retries", "num_starts"), [(0, 1), (1, 2), (2, 3), (9, 4)])
def test_a_prompt_that_always_fails_is_asked_no_more_than_allowed(
    store: AnswerStore, run: RunFolder, retries: int, num_starts: int
) -> None:
    engine = FakeEngine(lambda prompt: BROKEN if prompt.prompt_hash == "bad" else GOOD)
    answer_all(table_of(prompts_of("good", "bad")), engine, store, ProfileConfig(retries=retries), RULES)
    assert len(engine.asked) == num_starts, "4 attempts at most, whatever the retries"
    assert errors_in(store) == {"good": None, "bad": BROKEN[2]}
    assert attempts_in(run) == [*(("bad", number + 1) for number in range(num_starts)), ("good", 1)]


def test_attempts_go_on_from_those_of_earlier_runs(store: AnswerStore, run: RunFolder) -> None:
    engine = FakeEngine(lambda prompt: BROKEN)
    third = next_attempt(prompts_of("bad")[0], Failure(num_attempts=2, num_failures=2, was_cut=False))
    answer_all(table_of([third]), engine, store, ProfileConfig(retries=5), RULES)
    assert attempts_in(run) == [("bad", 3), ("bad", 4)]


def test_an_outage_is_no_failure_of_the_prompt(store: AnswerStore, run: RunFolder) -> None:
    replies = {1: BROKEN, 2: DOWN, 3: BROKEN, 4: DOWN, 5: BROKEN, 6: GOOD}
    engine = FakeEngine(lambda prompt: replies[prompt.attempt])
    answer_all(table_of(prompts_of("bad")), engine, store, ProfileConfig(retries=9, max_attempts=3), RULES)
    assert attempts_in(run) == [("bad", attempt) for attempt in (1, 2, 3, 4, 5)], "failed for the third time"
    assert store.best()["num_failures"].to_pylist() == [3]


def test_nothing_is_asked_again_where_nothing_failed(store: AnswerStore) -> None:
    engine = FakeEngine(lambda prompt: GOOD)
    assert answer_all(table_of(prompts_of("a", "b", "c")), engine, store, ProfileConfig(), RULES) == 0
    assert len(engine.asked) == 1


def test_a_stalled_engine_ends_the_stage_and_its_answers_are_kept(
    store: AnswerStore, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(lambda prompt: GOOD)
    ended = []

    def stalling(prompts: Sequence[Prompt]) -> Iterator[pa.Table]:
        try:
            yield from engine(prompts[:2])
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            ended.append(True)

    config = ProfileConfig(stall_timeout_s=0.3, commit_interval_s=1000)
    with pytest.raises(StageError, match=r"No answer arrived for 0\.3s \(profile\.stall_timeout_s=0\.3\)"):
        answer_all(table_of(prompts_of("a", "b", "c")), stalling, store, config, RULES)
    assert errors_in(store) == {"a": None, "b": None}
    assert ended == [True], "the engine was told to end"
    assert "profile: answers: 2 rows in" in capsys.readouterr().err


def test_what_came_before_an_error_is_committed(store: AnswerStore) -> None:
    engine = FakeEngine(lambda prompt: GOOD)

    def breaking(prompts: Sequence[Prompt]) -> Iterator[pa.Table]:
        yield from engine(prompts[:2])
        raise StageError("The language model stopped; mend it.")

    with pytest.raises(StageError, match="The language model stopped"):
        answer_all(table_of(prompts_of("a", "b", "c")), breaking, store, ProfileConfig(commit_interval_s=1000), RULES)
    assert errors_in(store) == {"a": None, "b": None}


def test_progress_tells_tokens_and_failures(store: AnswerStore, capsys: pytest.CaptureFixture[str]) -> None:
    replies = {"a": GOOD, "b": ECHO, "c": GOOD}
    engine = FakeEngine(lambda prompt: replies[prompt.prompt_hash])
    answer_all(table_of(prompts_of("a", "b", "c")), engine, store, ProfileConfig(retries=0), RULES)
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("profile: answers: 3 rows in 0.")
    assert line.endswith(" rows/s, 16 tokens/s, 1 failed"), "16 words; the first second is taken for a whole one"
    assert store.rate(rate_name(ProfileConfig())) is None, "three answers say nothing about a long run"


def test_the_rate_of_the_first_round_is_kept(store: AnswerStore) -> None:
    def slow(prompts: Sequence[Prompt]) -> Iterator[pa.Table]:
        time.sleep(0.2)
        yield from FakeEngine(lambda prompt: GOOD if len(prompts) > 20 and prompt.key > 10 else EMPTY)(prompts)

    config = ProfileConfig(num_replicas=2, commit_interval_s=0.05)
    assert answer_all(table_of(prompts_of(*map(str, range(110)))), slow, store, config, RULES) == 10
    rate = store.rate(rate_name(config))
    assert rate is not None
    assert rate.num_answers == 110
    assert 0 < rate.output_tokens_per_s <= 700 / 0.2 / 2


class MortalEngine(FakeEngine):
    """Dies at a poisonous prompt, before it answers the two of its batch."""

    def __init__(self, *poison: str) -> None:
        super().__init__(self._reply_or_die)
        self._poison = poison

    def _reply_or_die(self, prompt: Prompt) -> Reply:
        if prompt.prompt_hash in self._poison:
            raise EngineDied("The language model stopped; mend it.")
        return GOOD


KILLS = "this prompt alone kills the engine: The language model stopped; mend it."


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(num_prompts=st.integers(2, 40), where=st.sets(st.integers(0, 39), max_size=3))
def test_prompts_that_kill_the_engine_are_found_and_all_others_answered(
    tmp_path_factory: pytest.TempPathFactory, num_prompts: int, where: set[int]
) -> None:
    poison = {str(place) for place in where if place < num_prompts}
    assume(len(poison) < num_prompts)
    store = AnswerStore(RunFolder(str(tmp_path_factory.mktemp("run"))).stage("profile"), RULES)
    engine = MortalEngine(*poison)
    names = [str(place) for place in range(num_prompts)]
    answer_all(table_of(prompts_of(*names)), engine, store, ProfileConfig(), RULES)
    assert errors_in(store) == {name: KILLS if name in poison else None for name in names}


def test_a_prompt_that_killed_the_engine_is_asked_again_in_later_runs_only(store: AnswerStore, run: RunFolder) -> None:
    engine = MortalEngine("bad")
    answer_all(table_of(prompts_of("good", "bad")), engine, store, ProfileConfig(retries=3), RULES)
    assert attempts_in(run) == [("bad", 1), ("good", 1)]
    again = next_attempt(prompts_of("bad")[0], Failure(num_attempts=1, num_failures=1, was_cut=False))
    answer_all(table_of([again]), engine, store, ProfileConfig(), RULES)
    assert attempts_in(run) == [("bad", 1), ("bad", 2), ("good", 1)], "though nothing else shows that the engine works"


def test_an_engine_that_answers_nothing_ends_the_stage_and_blames_no_prompt(store: AnswerStore) -> None:
    names = [str(place) for place in range(600)]
    engine = MortalEngine(*names)
    with pytest.raises(EngineDied, match="The language model stopped"):
        answer_all(table_of(prompts_of(*names)), engine, store, ProfileConfig(), RULES)
    assert errors_in(store) == {}
    assert len(engine.asked) == 25
