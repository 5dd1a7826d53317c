"""Asking an engine: answers are committed as they arrive, failures asked once more, a stalled engine given up.

A prompt that kills the engine is found by asking what the engine left in smaller and smaller groups, and is a failure
like others.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from sracl_dist.columns import ATTEMPT, ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.observe import Progress, say
from sracl_dist.profiles.answers import ANSWERS, UNAVAILABLE, EngineDied
from sracl_dist.profiles.attempts import Failure, next_attempt, was_cut_to_nothing
from sracl_dist.profiles.language_model import end_token_ids
from sracl_dist.profiles.prompt_table import PromptTable
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.quality import AnswerRules, failure_of
from sracl_dist.profiles.rate import RateMeter, num_replicas, rate_name
from sracl_dist.profiles.store import STORED, AnswerStore
from sracl_dist.profiles.watchdog import watched

MAX_SUSPECTS = 512
"""Prompts asked apart after an engine died; engines take prompts in order and hold no more than about so many."""
FIRST = (1, 0)
"""Number of the attempt and of earlier failures of a prompt that has not been asked before."""
MAX_DEATHS_IN_A_ROW = 24
"""Twice what it takes to find one prompt among the suspects; an engine that dies more often answers nothing at all."""

Ask = Callable[[Sequence[Prompt]], Iterator[pa.Table]]
"""Sends prompts to an engine; yields small tables of `ANSWERS` as they finish, and ends the engine when closed."""


@contextlib.contextmanager
def started_engine(config: Config, model: str) -> Iterator[Ask]:
    """The engine that `profile.engine` names, for the duration of the block."""
    settings = config.profile
    if settings.engine == "endpoint":
        from sracl_dist.profiles.endpoint import ask_endpoint

        say(f"profile: asking {model} at {settings.endpoint.url}")
        yield lambda prompts: ask_endpoint(prompts, settings)
        return
    from sracl_dist.cluster import connected
    from sracl_dist.profiles.engine import generate_answers

    say("profile: starting the language model")
    ends = end_token_ids(model)
    with connected(config.cluster) as cluster:
        yield lambda prompts: generate_answers(prompts, model, settings, cluster, ends)


def answer_all(prompts: PromptTable, ask: Ask, store: AnswerStore, settings: ProfileConfig, rules: AnswerRules) -> int:
    """Ask all prompts, and those without a usable answer `profile.retries` times more; returns how many retries.

    What is committed is never asked again, whenever the stage is killed.
    """
    failures = _ask_once(prompts, ask, _Intake(prompts, store, settings, rules, measure=True))
    num_retried = 0
    for _ in range(settings.retries):
        prompts = _to_retry(prompts, failures, settings.max_attempts)
        if not len(prompts):
            break
        say(f"profile: asking {len(prompts):,} prompts once more, which have no usable answer")
        num_retried += len(prompts)
        failures = _ask_once(prompts, ask, _Intake(prompts, store, settings, rules, measure=False))
    return num_retried


def _ask_once(prompts: PromptTable, ask: Ask, intake: "_Intake") -> dict[str, Failure]:
    groups: list[Sequence[Prompt]] = [prompts]
    num_deaths = 0
    with contextlib.closing(intake):
        while groups:
            group, num_taken = groups.pop(), intake.num_taken
            try:
                with contextlib.closing(watched(ask(group), intake.stall_timeout_s)) as batches:
                    for answers in batches:
                        intake.take(answers)
            except EngineDied as error:
                num_deaths = num_deaths + 1 if intake.num_taken == num_taken else 1
                left = intake.unanswered(group)
                if num_deaths > MAX_DEATHS_IN_A_ROW:
                    raise
                if len(left) > 1:
                    groups += _suspects_last(left)
                elif len(left) == 1 and intake.may_give_up(left[0]):
                    intake.give_up(left[0], error)
                elif len(left) == 1:
                    if not groups:
                        raise
                    groups.insert(0, left)  # whether it or the engine is to blame, the others will tell
    return intake.failures


def _suspects_last(left: PromptTable) -> list[Sequence[Prompt]]:
    """What a dead engine has left in two groups, the second of which is asked first."""
    num_suspects = min(MAX_SUSPECTS, len(left) // 2)
    say(f"profile: the engine died; asking {num_suspects:,} of the {len(left):,} prompts that it left by themselves")
    return [left.part(num_suspects, len(left)), left.part(0, num_suspects)]


def _to_retry(prompts: PromptTable, failures: dict[str, Failure], max_attempts: int) -> PromptTable:
    again = PromptTable()
    for prompt in prompts if failures else ():
        failure = failures.get(prompt.prompt_hash)
        if failure is not None and failure.num_failures < max_attempts:
            again.append(next_attempt(prompt, failure))
    return again


class _Intake:
    """Takes answers: commits them about every `profile.commit_interval_s`, judges and counts them, shows progress.

    Failures are those of `failures`, by hash. With `measure`, the rate is kept beside the answers.
    """

    def __init__(
        self,
        prompts: PromptTable,
        store: AnswerStore,
        settings: ProfileConfig,
        rules: AnswerRules,
        *,
        measure: bool,
    ) -> None:
        self.failures: dict[str, Failure] = {}
        self.num_taken = 0
        self.stall_timeout_s = settings.stall_timeout_s
        self._attempts = prompts.later_attempts()
        self._store, self._rules, self._measure = store, rules, measure
        self._interval_s, self._rate_name = settings.commit_interval_s, rate_name(settings)
        self._pending: list[pa.Table] = []
        self._committed = time.monotonic()
        self._num_tokens = 0
        self._progress = Progress("profile: answers", len(prompts), "rows")
        self._meter = RateMeter(num_replicas(settings))

    def take(self, answers: pa.Table) -> None:
        """Handle the columns of `ANSWERS` that have just arrived."""
        attempts = [self._attempts.get(hash_, FIRST) for hash_ in answers[PROMPT_HASH].to_pylist()]
        numbers = pa.array([attempt for attempt, _ in attempts], pa.int32())
        self._pending.append(answers.append_column(STORED.field(ATTEMPT), numbers))
        self._judge(answers, attempts)
        self.num_taken += answers.num_rows
        num_tokens = sum(filter(None, answers[NUM_OUTPUT_TOKENS].to_pylist()))
        self._num_tokens += num_tokens
        self._meter.add(answers.num_rows, num_tokens)
        rate = round(self._num_tokens / max(self._progress.elapsed_s, 1.0))
        facts: dict[str, Any] = {"tokens/s": rate, "failed": len(self.failures)}
        self._progress.update(answers.num_rows, **facts)
        if time.monotonic() - self._committed >= self._interval_s:
            self._commit()

    def unanswered(self, prompts: Sequence[Prompt]) -> PromptTable:
        """Those of the prompts that have no answer to this attempt."""
        self._commit()
        asked = self._store.asked()
        left = PromptTable()
        for prompt in prompts:
            if (prompt.prompt_hash, prompt.attempt) not in asked:
                left.append(prompt)
        return left

    def may_give_up(self, prompt: Prompt) -> bool:
        """Whether it is this prompt that kills the engine, since the engine answers others."""
        return self.num_taken > 0 or prompt.attempt > 1

    def give_up(self, prompt: Prompt, error: EngineDied) -> None:
        """Take a prompt that kills the engine for failed; it is not asked again in this run."""
        row = {PROMPT_HASH: prompt.prompt_hash, ERROR: f"this prompt alone kills the engine: {error}"}
        self.take(pa.Table.from_pylist([row], schema=ANSWERS))
        del self.failures[prompt.prompt_hash]

    def close(self) -> None:
        """Commit the last answers, whatever ended the asking."""
        self._commit()
        self._progress.close()

    def _judge(self, answers: pa.Table, attempts: list[tuple[int, int]]) -> None:
        columns = [answers[name].to_pylist() for name in (PROMPT_HASH, TEXT, FINISH_REASON, ERROR)]
        for hash_, text, reason, error, (attempt, num_failures) in zip(*columns, attempts, strict=True):
            if error or failure_of(text, self._rules):
                self.failures[hash_] = Failure(
                    num_attempts=attempt,
                    num_failures=num_failures + (reason != UNAVAILABLE),
                    was_cut=was_cut_to_nothing(text, reason),
                )

    def _commit(self) -> None:
        self._store.commit(self._pending)
        self._pending.clear()
        self._committed = time.monotonic()
        rate = self._meter.rate() if self._measure else None
        if rate is not None:
            self._store.keep_rate(self._rate_name, rate)
