"""How a prompt is asked, the first time and after its answer was a failure."""

from dataclasses import dataclass

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.profiles.quality import answer_of

RETRY_TEMPERATURE = 0.7
"""At least; at temperature 0 another seed would give the same answer again."""
MORE_ROOM = 2


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What an engine needs to know besides the prompt."""

    temperature: float
    seed: int
    max_output_tokens: int


def was_cut_to_nothing(text: str | None, finish_reason: str | None) -> bool:
    """Whether an answer reached its limit before it said anything, thoughts left out."""
    return finish_reason == "length" and not answer_of(text)


def sampling_of(prompt: Prompt, config: ProfileConfig) -> Sampling:
    """As configured for the first attempt; each further one has a seed of its own and is at least a little random.

    A prompt whose answer was cut before it said anything may take twice as many tokens, where the engine's context
    (`profile.max_prompt_tokens` and `profile.max_output_tokens` together) leaves room for them.
    """
    max_output_tokens = config.max_output_tokens
    if prompt.wants_room:
        room = config.max_prompt_tokens + config.max_output_tokens - prompt.num_tokens
        max_output_tokens = max(max_output_tokens, min(MORE_ROOM * max_output_tokens, room))
    is_first = prompt.attempt == 1
    return Sampling(
        temperature=config.temperature if is_first else max(config.temperature, RETRY_TEMPERATURE),
        seed=prompt.attempt - 1,
        max_output_tokens=max_output_tokens,
    )
