"""vLLM without anything around it, as the measure of what the stage profile could reach."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sracl_dist.config.sections import ProfileConfig
from sracl_dist.precision import cpu_multiplies_bfloat16
from sracl_dist.profiles.engine import cpu_environment, engine_settings, for_cpu


@dataclass(frozen=True, kw_only=True)
class BareRun:
    """What one call of `LLM.generate` did."""

    generate_s: float
    num_prompt_tokens: int
    num_cached_tokens: int
    num_output_tokens: int


def generate_bare(model: str, config: ProfileConfig, cpus: int, prompts: Sequence[Sequence[int]]) -> BareRun:
    """Answer all prompts with the engine of the stage; runs in a process of its own, whose environment it sets."""
    os.environ.update(cpu_environment(config, cpus, alone=True))
    from vllm import LLM, SamplingParams

    config = for_cpu(config, multiplies_bfloat16=cpu_multiplies_bfloat16())
    engine = LLM(model, **engine_settings(config, num_gpus=0))
    sampling = SamplingParams(
        temperature=config.temperature,
        repetition_penalty=config.repetition_penalty,
        max_tokens=config.max_output_tokens,
        seed=0,
    )
    started = time.perf_counter()
    asked: Any = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
    outputs: list[Any] = engine.generate(asked, sampling, use_tqdm=False)
    generate_s = time.perf_counter() - started
    engine.llm_engine.engine_core.shutdown()  # its process would keep this one from ending
    return BareRun(
        generate_s=generate_s,
        num_prompt_tokens=sum(len(output.prompt_token_ids) for output in outputs),
        num_cached_tokens=sum(output.num_cached_tokens or 0 for output in outputs),
        num_output_tokens=sum(len(output.outputs[0].token_ids) for output in outputs),
    )
