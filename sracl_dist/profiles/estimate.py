"""What asking will cost, told before it starts."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.observe import duration
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.rate import Rate
from sracl_dist.secrets import masked
from sracl_dist.visible import visible

SAMPLE_PROMPTS = 10_000
MAX_SHOWN_CHARS = 6000
CACHE_BLOCK_TOKENS = 32
"""Of the engine on CPU: only whole blocks are shared, and its default of 128 exceeds most system messages.

The smaller blocks of a GPU share a little more."""
_COUNTS = (
    "num_prompts",
    "num_distinct",
    "num_answered",
    "num_given_up",
    "num_to_ask",
    "num_prompt_tokens",
    "max_output_tokens",
)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Prompts and tokens of a run, retries left out."""

    num_prompts: int
    """One per item or user."""
    num_distinct: int
    num_answered: int
    """Distinct prompts with a usable answer in the store."""
    num_given_up: int
    """Distinct prompts that have failed too often."""
    num_to_ask: int
    num_prompt_tokens: int
    """Of the prompts to ask, as the following two."""
    max_output_tokens: int
    expected_output_tokens: int | None
    """From the answers in the store; None where there are none."""
    shared_share: float | None
    """Share of the prompt tokens that an engine need not compute, if it forgets nothing; None where it is unknown."""
    rate: Rate | None
    """Of one replica, as measured before."""
    num_replicas: int
    num_looked_at: int | None = None
    """Prompts that stand for all of `num_prompts`; None where every one was looked at."""

    def for_all(self, num_prompts: int) -> "Estimate":
        """What so many prompts will cost, if those of this estimate are an even sample of them."""
        if num_prompts == self.num_prompts:
            return self
        share = num_prompts / max(self.num_prompts, 1)
        counts = {name: round(getattr(self, name) * share) for name in _COUNTS}
        expected = self.expected_output_tokens
        return replace(
            self,
            **counts,
            expected_output_tokens=None if expected is None else round(expected * share),
            num_looked_at=self.num_prompts,
        )

    @property
    def seconds(self) -> float | None:
        """How long it takes, or None without a measurement."""
        if self.rate is None:
            return None
        num_tokens = self.max_output_tokens if self.expected_output_tokens is None else self.expected_output_tokens
        return num_tokens / (self.rate.output_tokens_per_s * self.num_replicas)

    def lines(self, settings: ProfileConfig) -> list[str]:
        """For the person who runs the job."""
        looked_at = "" if self.num_looked_at is None else f"estimated from {self.num_looked_at:,} of them, "
        given_up = f"{self.num_given_up:,} given up after profile.max_attempts={settings.max_attempts}, "
        lines = [
            f"{self.num_prompts:,} prompts, {looked_at}{self.num_distinct:,} distinct: "
            f"{self.num_answered:,} answered before, {given_up if self.num_given_up else ''}{self.num_to_ask:,} to ask"
        ]
        if not self.num_to_ask:
            return lines
        expected = "unknown how many are to be expected"
        if self.expected_output_tokens is not None:
            each = self.expected_output_tokens / self.num_to_ask
            expected = f"about {self.expected_output_tokens:,} expected ({each:.1f} each, from earlier answers)"
        shared = (
            ""
            if self.shared_share is None
            else (f", about {self.shared_share:.0%} of them in beginnings shared with an earlier prompt (an estimate)")
        )
        lines.append(f"{self.num_prompt_tokens:,} prompt tokens{shared}")
        lines.append(f"at most {self.max_output_tokens:,} output tokens, {expected}")
        lines.append(self._time_line(settings))
        return lines

    def _time_line(self, settings: ProfileConfig) -> str:
        if self.rate is None or self.seconds is None:
            return (
                "no rate is known yet, so the time cannot be told; a run with profile.max_items=200 "
                "profile.max_users=200 measures it"
            )
        place = f"profile.num_replicas={self.num_replicas}" if settings.engine == "vllm" else settings.endpoint.url
        most = "at most about" if self.expected_output_tokens is None else "about"
        return (
            f"{most} {duration(self.seconds)} on {place}, at {self.rate.output_tokens_per_s:,.0f} output tokens/s "
            f"each, measured from {self.rate.num_answers:,} answers"
        )


def expected_output_tokens(to_ask: dict[str, int], answered: dict[str, tuple[int, int]]) -> int | None:
    """From the answers to prompts of the same kind, or of the other kind where there are none.

    Args:
        to_ask: prompts to ask, by kind.
        answered: answers and their tokens together, by kind.
    """
    num_answers, num_tokens = (sum(values) for values in zip(*answered.values(), strict=True))
    if not num_answers:
        return None
    means = {
        kind: tokens / answers if answers else num_tokens / num_answers for kind, (answers, tokens) in answered.items()
    }
    return round(sum(num * means[kind] for kind, num in to_ask.items()))


def shared_share(prompts: Iterable[Prompt], block_tokens: int) -> float | None:
    """Share of the prompt tokens in whole blocks with which an earlier prompt begins too, from the first prompts.

    It is what one engine with an endless cache need not compute; a real one forgets, so it is an upper limit.
    """
    seen: set[bytes] = set()
    num_tokens = num_shared = 0
    for prompt in islice(prompts, SAMPLE_PROMPTS):
        ids = prompt.token_ids
        num_tokens += len(ids)
        key, known = b"", True
        for start in range(0, len(ids) - block_tokens, block_tokens):
            key = _chained(key, ids[start : start + block_tokens])
            known = known and key in seen
            num_shared += block_tokens if known else 0
            seen.add(key)
    return num_shared / num_tokens if num_tokens else None


def shown_prompt(prompt: Prompt, tokenizer: Any) -> str:
    """The prompt as the model reads it, indented and cut, without characters that a terminal would obey."""
    if prompt.messages:
        text = "\n".join(f"[{message['role']}] {message['content']}" for message in prompt.messages)
    else:
        text = tokenizer.decode(prompt.token_ids)
    text = masked(text)  # before it is cut: half a secret could not be recognized any more
    shown = text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]} ..."
    return "\n".join(f"    {visible(line)}" for line in shown.split("\n"))


def _chained(key: bytes, ids: list[int]) -> bytes:
    return hashlib.blake2b(key + str(ids).encode(), digest_size=16).digest()
