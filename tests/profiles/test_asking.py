"""Asking, with an engine that answers as it is told: retries, attempts, commits, and an engine that stalls."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fake_engine import BROKEN, CUT, DOWN, ECHO, EMPTY, GOOD, FakeEngine, Reply, prompts_of
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from small_prompts import hash_of, name_of, to_ask

from sracl_dist.columns import ATTEMPT, ERROR, PROMPT_HASH, TEXT
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import StageError
from sracl_dist.profiles.answers import EngineDied
from sracl_dist.profiles.asking import answer_all
from sracl_dist.profiles.ledger import PromptSet
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.quality import answer_rules, failure_of
from sracl_dist.profiles.rate import rate_name
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.template import Chat
from sracl_dist.run_folder import RunFolder

RULES = answer_rules([Chat(message="<data>\nTitle: $title\n</data>")])


def asked_all(
    run: RunFolder,
    prompts: Sequence[Prompt],
    ask: Callable[[PromptSet], Iterator[pa.Table]],
    store: AnswerStore,
    config: ProfileConfig,
) -> int:
    prompt_set, ledger = to_ask(run.stage("profile"), prompts)
    return answer_all(prompt_set, ledger, ask, store, config, RULES)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path))


@pytest.fixture
def store(run: RunFolder) -> AnswerStore:
    return AnswerStore(run.stage("profile"), RULES)


def attempts_in(run: RunFolder) -> list[tuple[str, int]]:
    rows = run.stage("profile").read_shards("generated/").to_pylist()
    return sorted((name_of(row[PROMPT_HASH]), row[ATTEMPT]) for row in rows)


def errors_in(run: RunFolder, store: AnswerStore) -> dict[str, str | None]:
    """Errors by name, of the answers that count."""
    folder, best = run.stage("profile"), store.best()
    found = {}
    for file, row, is_failure in zip(best.files, best.rows, best.is_failure, strict=True):
        (answer,) = folder.read_rows(best.names[file], np.array([row])).to_pylist()
        error = answer[ERROR] or failure_of(answer[TEXT], RULES)
        assert (error is not None) == is_failure
        found[name_of(answer[PROMPT_HASH])] = error
    return found


def test_failures_are_asked_once_more(run: RunFolder, store: AnswerStore) -> None:
    first: dict[str, Reply] = {"a": GOOD, "b": EMPTY, "c": CUT, "d": ECHO, "e": BROKEN}
    engine = FakeEngine(lambda prompt: first[name_of(prompt.prompt_hash)] if prompt.attempt == 1 else GOOD)
    num_retried = asked_all(run, prompts_of("a", "b", "c", "d", "e"), engine, store, ProfileConfig())
    assert num_retried == 4
    assert [name_of(prompt.prompt_hash) for prompt in engine.asked[1]] == ["b", "c", "d", "e"]
    assert [prompt.attempt for prompt in engine.asked[1]] == [2, 2, 2, 2]
    assert [prompt.wants_room for prompt in engine.asked[1]] == [False, True, False, False]
    assert errors_in(run, store) == dict.fromkeys("abcde")
    assert attempts_in(run) == [("a", 1), *((hash_, attempt) for hash_ in "bcde" for attempt in (1, 2))]


@pytest.mark.parametrize(("retries", "num_starts"), [(0, 1), (1, 2), (2, 3), (9, 4)])
def test_a_prompt_that_always_fails_is_asked_no_more_than_allowed(
    store: AnswerStore, run: RunFolder, retries: int, num_starts: int
) -> None:
    engine = FakeEngine(lambda prompt: BROKEN if prompt.prompt_hash == hash_of("bad") else GOOD)
    asked_all(run, prompts_of("good", "bad"), engine, store, ProfileConfig(retries=retries))
    assert len(engine.asked) == num_starts, "4 attempts at most, whatever the retries"
    assert errors_in(run, store) == {"good": None, "bad": BROKEN[2]}
    assert attempts_in(run) == [*(("bad", number + 1) for number in range(num_starts)), ("good", 1)]


def test_attempts_go_on_from_those_of_earlier_runs(store: AnswerStore, run: RunFolder) -> None:
    engine = FakeEngine(lambda prompt: BROKEN)
    third = replace(prompts_of("bad")[0], attempt=3, num_failures=2)
    asked_all(run, [third], engine, store, ProfileConfig(retries=5))
    assert attempts_in(run) == [("bad", 3), ("bad", 4)]


def test_an_outage_is_no_failure_of_the_prompt(store: AnswerStore, run: RunFolder) -> None:
    replies = {1: BROKEN, 2: DOWN, 3: BROKEN, 4: DOWN, 5: BROKEN, 6: GOOD}
    engine = FakeEngine(lambda prompt: replies[prompt.attempt])
    asked_all(run, prompts_of("bad"), engine, store, ProfileConfig(retries=9, max_attempts=3))
    assert attempts_in(run) == [("bad", attempt) for attempt in (1, 2, 3, 4, 5)], "failed for the third time"
    assert store.best().num_failures.tolist() == [3]


def test_nothing_is_asked_again_where_nothing_failed(run: RunFolder, store: AnswerStore) -> None:
    engine = FakeEngine(lambda prompt: GOOD)
    assert asked_all(run, prompts_of("a", "b", "c"), engine, store, ProfileConfig()) == 0
    assert len(engine.asked) == 1


def test_a_stalled_engine_ends_the_stage_and_its_answers_are_kept(
    run: RunFolder, store: AnswerStore, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = FakeEngine(lambda prompt: GOOD)
    ended = []

    def stalling(prompts: PromptSet) -> Iterator[pa.Table]:
        try:
            yield from engine(list(prompts)[:2])
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                time.sleep(0.01)
        finally:
            ended.append(True)

    config = ProfileConfig(stall_timeout_s=0.3, commit_interval_s=1000)
    with pytest.raises(StageError, match=r"No answer arrived for 0\.3s \(profile\.stall_timeout_s=0\.3\)"):
        asked_all(run, prompts_of("a", "b", "c"), stalling, store, config)
    assert errors_in(run, store) == {"a": None, "b": None}
    assert ended == [True], "the engine was told to end"
    assert "profile: answers: 2 rows in" in capsys.readouterr().err


def test_what_came_before_an_error_is_committed(run: RunFolder, store: AnswerStore) -> None:
    engine = FakeEngine(lambda prompt: GOOD)

    def breaking(prompts: PromptSet) -> Iterator[pa.Table]:
        yield from engine(list(prompts)[:2])
        raise StageError("The language model stopped; mend it.")

    with pytest.raises(StageError, match="The language model stopped"):
        asked_all(run, prompts_of("a", "b", "c"), breaking, store, ProfileConfig(commit_interval_s=1000))
    assert errors_in(run, store) == {"a": None, "b": None}


def test_progress_tells_tokens_and_failures(
    run: RunFolder, store: AnswerStore, capsys: pytest.CaptureFixture[str]
) -> None:
    replies = {"a": GOOD, "b": ECHO, "c": GOOD}
    engine = FakeEngine(lambda prompt: replies[name_of(prompt.prompt_hash)])
    asked_all(run, prompts_of("a", "b", "c"), engine, store, ProfileConfig(retries=0))
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("profile: answers: 3 rows in 0.")
    assert line.endswith(" rows/s, 16 tokens/s, 1 failed"), "16 words; the first second is taken for a whole one"
    assert store.rate(rate_name(ProfileConfig())) is None, "three answers say nothing about a long run"


def test_the_rate_of_the_first_round_is_kept(run: RunFolder, store: AnswerStore) -> None:
    def slow(prompts: PromptSet) -> Iterator[pa.Table]:
        time.sleep(0.2)
        yield from FakeEngine(lambda prompt: GOOD if len(prompts) > 20 and prompt.key > 10 else EMPTY)(prompts)

    config = ProfileConfig(num_replicas=2, commit_interval_s=0.05)
    assert asked_all(run, prompts_of(*map(str, range(110))), slow, store, config) == 10
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
        if name_of(prompt.prompt_hash) in self._poison:
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
    run = RunFolder(str(tmp_path_factory.mktemp("run")))
    store = AnswerStore(run.stage("profile"), RULES)
    engine = MortalEngine(*poison)
    names = [str(place) for place in range(num_prompts)]
    asked_all(run, prompts_of(*names), engine, store, ProfileConfig())
    assert errors_in(run, store) == {name: KILLS if name in poison else None for name in names}


def test_a_prompt_that_killed_the_engine_is_asked_again_in_later_runs_only(store: AnswerStore, run: RunFolder) -> None:
    engine = MortalEngine("bad")
    asked_all(run, prompts_of("good", "bad"), engine, store, ProfileConfig(retries=3))
    assert attempts_in(run) == [("bad", 1), ("good", 1)]
    again = replace(prompts_of("bad")[0], attempt=2, num_failures=1)
    asked_all(run, [again], engine, store, ProfileConfig())
    assert attempts_in(run) == [("bad", 1), ("bad", 2), ("good", 1)], "though nothing else shows that the engine works"


def test_an_engine_that_answers_nothing_ends_the_stage_and_blames_no_prompt(run: RunFolder, store: AnswerStore) -> None:
    names = [str(place) for place in range(600)]
    engine = MortalEngine(*names)
    with pytest.raises(EngineDied, match="The language model stopped"):
        asked_all(run, prompts_of(*names), engine, store, ProfileConfig())
    assert errors_in(run, store) == {}
    assert len(engine.asked) == 25
