"""What there is to ask: every prompt, which of them are answered, and what the others will cost."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import ERROR, FINISH_REASON, KEY, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.observe import Progress
from sracl_dist.profiles.attempts import Failure, next_attempt, was_cut_to_nothing
from sracl_dist.profiles.estimate import CACHE_BLOCK_TOKENS, Estimate, expected_output_tokens, shared_share
from sracl_dist.profiles.prompt_table import PromptTable, RowBuilder
from sracl_dist.profiles.prompts import Prompt, PromptWriter
from sracl_dist.profiles.rate import num_replicas, rate_name
from sracl_dist.profiles.store import NUM_ATTEMPTS, NUM_FAILURES, AnswerStore
from sracl_dist.profiles.texts import TrainingTexts

KINDS = ("items", "users")
ROWS = pa.schema([(KEY, pa.int64()), (PROMPT_HASH, pa.string()), (NUM_PROMPT_TOKENS, pa.int32())])
"""What is kept of every prompt; the rest only of those that are asked."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The prompts of a run."""

    rows: dict[str, pa.Table]
    """Of each kind, with the columns of `ROWS`, by rising key."""
    to_ask: PromptTable
    """Each distinct prompt once that has no usable answer and has not failed too often."""
    samples: list[Prompt]
    """The first item, the first user, and the longest of the others."""
    estimate: Estimate


def make_plan(
    settings: ProfileConfig, texts: TrainingTexts, tokenizer: Any, store: AnswerStore, item_kind: str
) -> Plan:
    """Write all prompts and look each of them up in the store."""
    writer = PromptWriter(settings, texts, tokenizer, item_kind)
    keys = _chosen_keys(settings, texts)
    progress = Progress("profile: prompts", sum(map(len, keys.values())), "prompts")
    collector = _Collector(store.best(), settings.max_attempts)
    for kind, write in (("items", writer.items), ("users", writer.users)):
        for prompt in write(keys[kind].tolist()):
            collector.add(prompt)
            progress.update(1)
    progress.close()
    return Plan(
        rows={kind: builder.table() for kind, builder in collector.rows.items()},
        to_ask=collector.to_ask,
        samples=collector.samples(),
        estimate=collector.estimate(settings, store),
    )


def _chosen_keys(settings: ProfileConfig, texts: TrainingTexts) -> dict[str, NDArray[np.int64]]:
    # An item without training interactions still has attributes; a user without them has nothing to say.
    lengths = np.array([len(texts.history(user)) for user in range(texts.num_users)])
    return {
        "items": first_keys(texts.num_training()[1:], settings.max_items, least=0) + 1,
        "users": first_keys(lengths, settings.max_users, least=1),
    }


def first_keys(counts: NDArray[np.int64], limit: int | None, least: int) -> NDArray[np.int64]:
    """Indices with a count of `least` or more, all in order or the `limit` highest; ties go to the lower index."""
    indices = np.flatnonzero(counts >= least)
    if limit is None or limit >= len(indices):
        return indices
    order = np.argsort(-counts[indices], kind="stable")
    return np.sort(indices[order[:limit]])


class _Collector:
    """Takes the prompts one by one and keeps of each what is needed."""

    def __init__(self, best: pa.Table, max_attempts: int) -> None:
        self._num_answer_tokens, self._failures = _known(best)
        self._max_attempts = max_attempts
        self.rows = {kind: RowBuilder(ROWS) for kind in KINDS}
        self.to_ask = PromptTable()
        self._seen: set[str] = set()
        self._num_to_ask: Counter[str] = Counter()
        self._answered = dict.fromkeys(KINDS, (0, 0))
        self._num_given_up = self._num_prompt_tokens = 0
        self._first: dict[str, Prompt] = {}
        self._longest: Prompt | None = None

    def add(self, prompt: Prompt) -> None:
        """Count the prompt, and keep it where it is to be asked."""
        self.rows[prompt.kind].append(prompt.key, prompt.prompt_hash, prompt.num_tokens)
        if prompt.kind not in self._first:
            self._first[prompt.kind] = prompt
        elif self._longest is None or prompt.num_tokens > self._longest.num_tokens:
            self._longest = prompt
        if prompt.prompt_hash in self._seen:
            return
        self._seen.add(prompt.prompt_hash)
        failure = self._failures.get(prompt.prompt_hash)
        if prompt.prompt_hash in self._num_answer_tokens:
            num_answers, num_tokens = self._answered[prompt.kind]
            own_tokens = self._num_answer_tokens[prompt.prompt_hash]
            self._answered[prompt.kind] = (num_answers + 1, num_tokens + own_tokens)
        elif failure is not None and failure.num_failures >= self._max_attempts:
            self._num_given_up += 1
        else:
            self.to_ask.append(next_attempt(prompt, failure))
            self._num_to_ask[prompt.kind] += 1
            self._num_prompt_tokens += prompt.num_tokens

    def samples(self) -> list[Prompt]:
        """A few prompts to look at."""
        return [*self._first.values(), *([self._longest] if self._longest else [])]

    def estimate(self, settings: ProfileConfig, store: AnswerStore) -> Estimate:
        """What asking will cost."""
        shares = settings.engine == "vllm"
        return Estimate(
            num_prompts=sum(map(len, self.rows.values())),
            num_distinct=len(self._seen),
            num_answered=sum(num for num, _ in self._answered.values()),
            num_given_up=self._num_given_up,
            num_to_ask=len(self.to_ask),
            num_prompt_tokens=self._num_prompt_tokens,
            max_output_tokens=len(self.to_ask) * settings.max_output_tokens,
            expected_output_tokens=expected_output_tokens(self._num_to_ask, self._answered),
            shared_share=shared_share(self.to_ask, CACHE_BLOCK_TOKENS) if shares else None,
            rate=store.rate(rate_name(settings)),
            num_replicas=num_replicas(settings),
        )


def _known(best: pa.Table) -> tuple[dict[str, int], dict[str, Failure]]:
    """What the store tells: tokens of the usable answers, and the failures, by hash."""
    num_tokens: dict[str, int] = {}
    failures: dict[str, Failure] = {}
    for batch in best.select(
        [PROMPT_HASH, TEXT, FINISH_REASON, NUM_OUTPUT_TOKENS, ERROR, NUM_ATTEMPTS, NUM_FAILURES]
    ).to_batches():
        for hash_, text, reason, num, error, num_attempts, num_failures in zip(
            *map(pa.Array.to_pylist, batch.columns), strict=True
        ):
            if error is None:
                num_tokens[hash_] = num or 0
            else:
                failures[hash_] = Failure(
                    num_attempts=num_attempts, num_failures=num_failures, was_cut=was_cut_to_nothing(text, reason)
                )
    return num_tokens, failures
