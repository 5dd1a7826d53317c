"""Asking an engine: answers are committed as they arrive, failures asked once more, a stalled engine given up.

A prompt that kills the engine is found by asking what the engine left in smaller and smaller groups, and is a failure
like others.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sracl_dist.columns import ATTEMPT, ERROR, NUM_OUTPUT_TOKENS, PROMPT_HASH
from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import StageError
from sracl_dist.observe import Progress, say
from sracl_dist.profiles.answers import ANSWERS, EngineDied
from sracl_dist.profiles.hashes import packed
from sracl_dist.profiles.language_model import end_token_ids
from sracl_dist.profiles.ledger import Ledger, PromptSet
from sracl_dist.profiles.quality import AnswerRules
from sracl_dist.profiles.rate import RateMeter, num_replicas, rate_name
from sracl_dist.profiles.store import STORED, AnswerStore
from sracl_dist.profiles.store_index import judge
from sracl_dist.profiles.watchdog import watched

MAX_SUSPECTS = 512
"""Prompts asked apart after an engine died; engines take prompts in order and hold no more than about so many."""
MAX_DEATHS_IN_A_ROW = 24
"""Twice what it takes to find one prompt among the suspects; an engine that dies more often answers nothing at all."""

Ask = Callable[[PromptSet], Iterator[pa.Table]]
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


def answer_all(
    prompts: PromptSet,
    ledger: Ledger,
    ask: Ask,
    store: AnswerStore,
    settings: ProfileConfig,
    rules: AnswerRules,
) -> int:
    """Ask all prompts, and those without a usable answer `profile.retries` times more; returns how many retries.

    What is committed is never asked again, whenever the stage is killed.
    """
    failed = _ask_once(prompts, ask, _Intake(prompts, ledger, store, settings, rules, measure=True))
    num_retried = 0
    for _ in range(settings.retries):
        again = prompts.of_rows(failed[ledger.num_failures[failed] < settings.max_attempts])
        if not len(again):
            break
        say(f"profile: asking {len(again):,} prompts once more, which have no usable answer")
        num_retried += len(again)
        failed = _ask_once(again, ask, _Intake(again, ledger, store, settings, rules, measure=False))
    return num_retried


def _ask_once(prompts: PromptSet, ask: Ask, intake: "_Intake") -> NDArray[np.int64]:
    """Returns the rows of the prompts that have failed and may be asked again in this run."""
    groups = [prompts]
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
                elif len(left) == 1 and intake.may_give_up(left):
                    intake.give_up(left, error)
                elif len(left) == 1:
                    if not groups:
                        raise
                    groups.insert(0, left)  # whether it or the engine is to blame, the others will tell
    return intake.failed()


def _suspects_last(left: PromptSet) -> list[PromptSet]:
    """What a dead engine has left in two groups, the second of which is asked first."""
    num_suspects = min(MAX_SUSPECTS, len(left) // 2)
    say(f"profile: the engine died; asking {num_suspects:,} of the {len(left):,} prompts that it left by themselves")
    return [left.part(num_suspects, len(left)), left.part(0, num_suspects)]


class _Intake:
    """Takes answers: commits them about every `profile.commit_interval_s`, judges and counts them, shows progress.

    The ledger records the result of every prompt. With `measure`, the rate is stored next to the answers.
    """

    def __init__(
        self,
        prompts: PromptSet,
        ledger: Ledger,
        store: AnswerStore,
        settings: ProfileConfig,
        rules: AnswerRules,
        *,
        measure: bool,
    ) -> None:
        self.num_taken = 0
        self.stall_timeout_s = settings.stall_timeout_s
        self._ledger, self._is_taken = ledger, np.zeros(len(ledger), np.bool_)
        self._is_given_up = np.zeros(len(ledger), np.bool_)
        self._store, self._rules, self._measure = store, rules, measure
        self._interval_s, self._rate_name = settings.commit_interval_s, rate_name(settings)
        self._pending: list[pa.Table] = []
        self._committed = time.monotonic()
        self._num_tokens = self._num_failed = 0
        self._progress = Progress("profile: answers", len(prompts), "rows")
        self._meter = RateMeter(num_replicas(settings))

    def take(self, answers: pa.Table) -> None:
        """Handle the columns of `ANSWERS` that have just arrived."""
        rows = self._ledger.find(packed(answers[PROMPT_HASH]))
        if (rows < 0).any():
            hash_ = answers[PROMPT_HASH][int(np.flatnonzero(rows < 0)[0])].as_py()
            raise StageError(f"The engine answered the prompt {hash_}, which it was not asked; run the stage again.")
        # An answer may come twice, as when a node is lost; it is the same attempt then.
        attempts = self._ledger.num_attempts[rows] + ~self._is_taken[rows]
        answers = answers.append_column(STORED.field(ATTEMPT), pa.array(attempts, pa.int32()))
        self._pending.append(answers)
        self._judge(answers, rows)
        self.num_taken += answers.num_rows
        num_tokens = pc.sum(answers[NUM_OUTPUT_TOKENS]).as_py() or 0
        self._num_tokens += num_tokens
        self._meter.add(answers.num_rows, num_tokens)
        rate = round(self._num_tokens / max(self._progress.elapsed_s, 1.0))
        facts: dict[str, Any] = {"tokens/s": rate, "failed": self._num_failed}
        self._progress.update(answers.num_rows, **facts)
        if time.monotonic() - self._committed >= self._interval_s:
            self._commit()

    def unanswered(self, prompts: PromptSet) -> PromptSet:
        """Those of the prompts that have no answer to this attempt."""
        self._commit()
        return prompts.of_rows(prompts.rows[~self._is_taken[prompts.rows]])

    def failed(self) -> NDArray[np.int64]:
        """Rows of the prompts whose answer to this attempt was a failure, but for those that were given up."""
        return np.flatnonzero(self._is_taken & ~self._ledger.is_answered & ~self._is_given_up)

    def may_give_up(self, prompt: PromptSet) -> bool:
        """Whether it is this one prompt that kills the engine, since the engine answers others."""
        return self.num_taken > 0 or self._ledger.num_attempts[prompt.rows[0]] > 0

    def give_up(self, prompt: PromptSet, error: EngineDied) -> None:
        """Take a prompt that kills the engine for failed; it is not asked again in this run."""
        (one,) = prompt
        row = {PROMPT_HASH: one.prompt_hash, ERROR: f"this prompt alone kills the engine: {error}"}
        self.take(pa.Table.from_pylist([row], schema=ANSWERS))
        self._is_given_up[prompt.rows] = True

    def close(self) -> None:
        """Commit the last answers, whatever ended the asking."""
        self._commit()
        self._progress.close()

    def _judge(self, answers: pa.Table, rows: NDArray[np.int64]) -> None:
        """Write into the ledger what has become of prompts that had no answer to this attempt yet."""
        _, first = np.unique(rows, return_index=True)
        first = first[~self._is_taken[rows[first]]]
        rows, judged = rows[first], judge(answers, self._rules)[first]
        ledger, is_failure = self._ledger, judged["is_failure"]
        self._is_taken[rows] = True
        ledger.num_attempts[rows] += 1
        ledger.num_failures[rows] += is_failure & judged["was_seen"]
        ledger.is_answered[rows], ledger.was_cut[rows] = ~is_failure, judged["was_cut"]
        self._num_failed += int(is_failure.sum())

    def _commit(self) -> None:
        self._store.commit(self._pending)
        self._pending.clear()
        self._committed = time.monotonic()
        rate = self._meter.rate() if self._measure else None
        if rate is not None:
            self._store.keep_rate(self._rate_name, rate)
