"""An engine without a model, which answers as it is told, and a store for it."""

from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
from small_prompts import hash_of

from sracl_dist.columns import ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.profiles.answers import ANSWERS, UNAVAILABLE
from sracl_dist.profiles.prompts import Prompt

Reply = tuple[str | None, str | None, str | None]
"""Text, finish reason and error."""
GOOD: Reply = ("This is a film about the sea.", "stop", None)
EMPTY: Reply = ("", "stop", None)
CUT: Reply = (" ", "length", None)
ECHO: Reply = ("Title: Jaws", "stop", None)
DOWN: Reply = (None, UNAVAILABLE, "the endpoint answers 503: busy")
BROKEN: Reply = (None, None, "ValueError: the prompt is too long")


class FakeEngine:
    """Answers two prompts at a time; `asked` holds every prompt that it got, a list per start."""

    def __init__(self, reply: Callable[[Prompt], Reply]) -> None:
        self._reply = reply
        self.asked: list[list[Prompt]] = []

    def __call__(self, prompts: Iterable[Prompt]) -> Iterator[pa.Table]:
        asked = list(prompts)
        self.asked.append(asked)
        for start in range(0, len(asked), 2):
            rows = [answer(prompt, *self._reply(prompt)) for prompt in asked[start : start + 2]]
            yield pa.Table.from_pylist(rows, schema=ANSWERS)


def answer(prompt: Prompt, text: str | None, finish_reason: str | None, error: str | None) -> dict[str, object]:
    row = {
        PROMPT_HASH: prompt.prompt_hash,
        TEXT: text,
        FINISH_REASON: finish_reason,
        NUM_PROMPT_TOKENS: prompt.num_tokens,
        NUM_OUTPUT_TOKENS: len((text or "").split()),
        ERROR: error,
    }
    assert list(row) == ANSWERS.names
    return row


def prompts_of(*names: str, kind: str = "items") -> list[Prompt]:
    return [Prompt(kind, key, [7] * 10, hash_of(name)) for key, name in enumerate(names, start=1)]
