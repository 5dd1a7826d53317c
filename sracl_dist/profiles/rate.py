"""How fast an engine answers."""

import time
from dataclasses import asdict, dataclass
from typing import Any

from sracl_dist.config.sections import ProfileConfig

ENOUGH_ANSWERS = 100
"""Fewer say little about a long run: the start of the engine takes most of their time."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A measurement of one replica."""

    output_tokens_per_s: float
    num_answers: int
    """From how many answers it was measured."""

    def to_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)


class RateMeter:
    """Measures while answers arrive, from the moment it is made, which is before the engine starts."""

    def __init__(self, num_replicas: int) -> None:
        self._num_replicas = num_replicas
        self._started = time.monotonic()
        self._first = self._last = self._started
        self._num_answers = self._num_tokens = self._num_first_tokens = 0

    def add(self, num_answers: int, num_output_tokens: int) -> None:
        """Count answers that have just arrived."""
        self._last = time.monotonic()
        if not self._num_answers:
            self._first, self._num_first_tokens = self._last, num_output_tokens
        self._num_answers += num_answers
        self._num_tokens += num_output_tokens

    def rate(self) -> Rate | None:
        """What was measured, or None with fewer than `ENOUGH_ANSWERS`.

        The time until the first answer, in which the engine starts, is left out once the answers have taken longer
        than that. Before, they may all come at once, and only the whole time says anything.
        """
        seconds, num_tokens = self._last - self._first, self._num_tokens - self._num_first_tokens
        if seconds <= self._first - self._started:
            seconds, num_tokens = self._last - self._started, self._num_tokens
        if self._num_answers < ENOUGH_ANSWERS or seconds <= 0 or num_tokens <= 0:
            return None
        per_replica = num_tokens / seconds / self._num_replicas
        return Rate(output_tokens_per_s=round(per_replica, 2), num_answers=self._num_answers)


def num_replicas(settings: ProfileConfig) -> int:
    """Engines that share the prompts; an endpoint counts as one."""
    return settings.num_replicas if settings.engine == "vllm" else 1


def rate_name(settings: ProfileConfig) -> str:
    """Under which an engine's rate is kept."""
    return f"{settings.engine} {settings.model}"
