"""What there is to ask: every prompt, which of them are answered, and what the others will cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import NUM_PROMPT_TOKENS, PROMPT_HASH
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.profiles.estimate import CACHE_BLOCK_TOKENS, Estimate, expected_output_tokens, shared_share
from sracl_dist.profiles.hashes import HASH, packed
from sracl_dist.profiles.ledger import Ledger, PromptSet
from sracl_dist.profiles.prompt_shards import PromptShard
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.rate import num_replicas, rate_name
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.store_index import BestAnswers
from sracl_dist.profiles.table import KINDS
from sracl_dist.profiles.texts import TrainingTexts
from sracl_dist.run_folder import StageFolder


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The prompts of a run, of which only hashes and counts are here."""

    hashes: NDArray[np.bytes_]
    """Of all prompts, packed, in the order of the shards."""
    num_tokens: NDArray[np.int32]
    """Length of each prompt."""
    ledger: Ledger
    to_ask: PromptSet
    """Each distinct prompt once that has no usable answer and has not failed too often."""
    num_items: int
    """Prompts of items, which come before those of users."""
    estimate: Estimate

    def samples(self) -> list[Prompt]:
        """The first item, the first user, and the longest of the others."""
        places = sorted({0, self.num_items} & set(range(len(self.hashes))))
        others = self.num_tokens.copy()
        others[places] = 0
        if others.any():
            places.append(int(others.argmax()))
        rows = self.ledger.find(self.hashes[places])
        return [prompt for row in rows for prompt in self.to_ask.of_rows(np.array([row]))]


def chosen_keys(settings: ProfileConfig, texts: TrainingTexts) -> dict[str, NDArray[np.int64]]:
    """Keys of each kind that are to be described, rising."""
    # An item without training interactions still has attributes; a user without them has nothing to say.
    return {
        "items": first_keys(texts.num_training()[1:], settings.max_items, least=0) + 1,
        "users": first_keys(texts.history_lengths(), settings.max_users, least=1),
    }


def first_keys(counts: NDArray[np.integer], limit: int | None, least: int) -> NDArray[np.int64]:
    """Indices with a count of `least` or more, all in order or the `limit` highest; ties go to the lower index."""
    indices = np.flatnonzero(counts >= least)
    if limit is None or limit >= len(indices):
        return indices
    order = np.argsort(-counts[indices], kind="stable")
    return np.sort(indices[order[:limit]])


def make_plan(
    settings: ProfileConfig, folder: StageFolder, shards: Sequence[PromptShard], store: AnswerStore, best: BestAnswers
) -> Plan:
    """Look up all prompts, which lie in the folder, among the store's answers."""
    hashes, num_tokens = _read_hashes(folder, shards)
    ledger = Ledger(hashes)
    found = ledger.learn(best)
    answer_tokens = np.zeros(len(ledger), np.int32)
    answer_tokens[found[found >= 0]] = best.num_output_tokens[found >= 0]
    is_given_up = ~ledger.is_answered & (ledger.num_failures >= settings.max_attempts)
    asked = np.flatnonzero(~ledger.is_answered & ~is_given_up)
    to_ask = PromptSet(folder, shards, ledger, asked)
    # A prompt counts to the kind that has it first.
    num_items = sum(shard.num_prompts for shard in shards if shard.kind == "items")
    of_kind = dict(zip(KINDS, (ledger.places < num_items, ledger.places >= num_items), strict=True))
    answered = {kind: ledger.is_answered & own for kind, own in of_kind.items()}
    estimate = Estimate(
        num_prompts=len(hashes),
        num_distinct=len(ledger),
        num_answered=int(ledger.is_answered.sum()),
        num_given_up=int(is_given_up.sum()),
        num_to_ask=len(to_ask),
        num_prompt_tokens=int(num_tokens[ledger.places[asked]].sum(dtype=np.int64)),
        max_output_tokens=len(to_ask) * settings.max_output_tokens,
        expected_output_tokens=expected_output_tokens(
            {kind: int(own[asked].sum()) for kind, own in of_kind.items()},
            {kind: (int(own.sum()), int(answer_tokens[own].sum(dtype=np.int64))) for kind, own in answered.items()},
        ),
        shared_share=shared_share(to_ask, CACHE_BLOCK_TOKENS) if settings.engine == "vllm" else None,
        rate=store.rate(rate_name(settings)),
        num_replicas=num_replicas(settings),
    )
    return Plan(
        hashes=hashes,
        num_tokens=num_tokens,
        ledger=ledger,
        to_ask=to_ask,
        num_items=num_items,
        estimate=estimate,
    )


def _read_hashes(folder: StageFolder, shards: Sequence[PromptShard]) -> tuple[NDArray[np.bytes_], NDArray[np.int32]]:
    """Packed hash and length of every prompt."""
    num_prompts = sum(shard.num_prompts for shard in shards)
    hashes, num_tokens = np.empty(num_prompts, HASH), np.empty(num_prompts, np.int32)
    start = 0
    for shard in shards:
        table = folder.read_table(shard.prompts.name, [PROMPT_HASH, NUM_PROMPT_TOKENS])
        end = start + shard.num_prompts
        hashes[start:end], num_tokens[start:end] = packed(table[PROMPT_HASH]), table[NUM_PROMPT_TOKENS].to_numpy()
        start = end
    return hashes, num_tokens
