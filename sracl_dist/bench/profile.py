"""How fast profiles are written: the whole stage against one bare call of vLLM, on the same prompts, model and cores.

The stage runs three times on its own private Ray cluster: for a single prompt, which tells how long everything takes
to start, for all the prompts, and for a single one again; what all of them take beyond a start is the time of the
answers. The bare call is `LLM.generate` with the same engine settings and all prompts at once, in a process of its own,
timed without the engine's start; it is made before and after the stage, because processors change their speed within
minutes, by as much as the two differ.
"""

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from sracl_dist.bench.bare_vllm import BareRun, generate_bare
from sracl_dist.config import Config, parse_config
from sracl_dist.config.sections import require
from sracl_dist.data.public_sets import item_kind
from sracl_dist.errors import InputError
from sracl_dist.observe import say
from sracl_dist.profiles.language_model import model_and_tokenizer
from sracl_dist.profiles.plan import first_keys
from sracl_dist.profiles.prompts import PromptWriter
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES, StageResult, run_stage, stage_status


@dataclass(kw_only=True)
class ProfileSettings:
    """What is asked."""

    source: str = "amazon-2014:beauty"
    """The log, as in data.source."""
    path: str | None = None
    """Folder with a local copy of it, as in data.path; null looks in $SRACL_DATA, then the cache, then fetches it."""
    model: str = "package:smollm2-135m-instruct"
    """The language model, as in profile.model."""
    num_prompts: int = 2000
    """Items that are described, the most frequent ones."""
    max_prompt_tokens: int = 256
    """As in profile.max_prompt_tokens."""
    max_output_tokens: int = 40
    """As in profile.max_output_tokens."""
    threads: int = 2
    """Cores of the engine, in the stage and in the bare call."""
    quick: bool = False
    """A few prompts: shows that it runs, and measures nothing."""

    def __post_init__(self) -> None:
        if self.quick:
            self.num_prompts, self.max_output_tokens = 8, 4

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_prompts", "max_output_tokens", "threads"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")


def measure(settings: ProfileSettings) -> dict[str, float]:
    """Figures by name; the comments say what they mean.

    Raises:
        ConfigError: the source is unknown.
        InputError: the log cannot be found, fetched or used, or has too few items.
        SetupError: vLLM or the model cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as folder:
        run = RunFolder(folder)
        config = _config(settings, folder, settings.num_prompts + 1)
        num_items = _run(config, run, "prepare").rows["items"]
        if num_items < settings.num_prompts + 2:
            raise InputError(
                f"The log has {num_items:,} items, too few for num_prompts={settings.num_prompts:,} and two more; use "
                f"less or another log."
            )
        before = _bare(config, run)
        first = _run(_config(settings, folder, 1), run, "profile").details
        all_of_them = _run(config, run, "profile").details
        last = _run(_config(settings, folder, settings.num_prompts + 2), run, "profile").details
        after = _bare(config, run)
    start_s = (first["generate_s"] + last["generate_s"]) / 2
    stage_s = all_of_them["generate_s"] - start_s
    bare_s = (before.generate_s + after.generate_s) / 2
    bare_tokens = (before.num_output_tokens + after.num_output_tokens) / 2
    num_tokens = all_of_them["num_output_tokens"] - first["num_output_tokens"]
    figures = {
        # Output tokens per second, the start of Ray and of the engine apart.
        "stage_tokens_per_s": num_tokens / stage_s,
        "bare_tokens_per_s": bare_tokens / bare_s,
        "stage_against_bare": num_tokens / stage_s * bare_s / bare_tokens,
        # Time of the second bare call over that of the first: what the machine's own speed changed meanwhile.
        "bare_drift": after.generate_s / before.generate_s,
        # Prompt tokens that the engine did not compute, out of all, as vLLM reports them in the bare call.
        "prefix_cache_hit_rate": before.num_cached_tokens / before.num_prompt_tokens,
        "stage_s": stage_s,
        "start_s": start_s,
        "bare_s": bare_s,
        "num_output_tokens": num_tokens,
        "num_prompt_tokens": before.num_prompt_tokens,
    }
    say(
        f"{settings.num_prompts:,} prompts: stage {figures['stage_tokens_per_s']:,.0f} output tokens/s, bare vLLM "
        f"{figures['bare_tokens_per_s']:,.0f} ({figures['stage_against_bare']:.3f}); "
        f"{figures['prefix_cache_hit_rate']:.0%} of the prompt tokens out of the prefix cache"
    )
    return figures


def _config(settings: ProfileSettings, folder: str, num_items: int) -> Config:
    values = {
        "run": {"dir": folder},
        "cluster": {"address": "local", "num_cpus": settings.threads},
        "data": {"source": settings.source, "path": settings.path},
        "profile": {
            "model": settings.model,
            "max_items": num_items,
            "max_users": 0,
            "histories_per_item": 1,
            "items_per_history": 3,
            "max_prompt_tokens": settings.max_prompt_tokens,
            "max_output_tokens": settings.max_output_tokens,
            "repetition_penalty": 1.0,
            "retries": 0,
            "max_failed_share": 1.0,
        },
    }
    return parse_config(values, [])


def _run(config: Config, run: RunFolder, name: str) -> StageResult:
    return run_stage(STAGES[name], config, run, stage_status(STAGES[name], config, run).draft)


def _bare(config: Config, run: RunFolder) -> BareRun:
    """The prompts of the stage's run for all of them, in a process that does nothing else."""
    settings = config.profile
    model, tokenizer = model_and_tokenizer(settings)
    texts = load_training_texts(run)
    counts = texts.num_training()[1:]
    first, asked = (first_keys(counts, limit, least=0) + 1 for limit in (1, settings.max_items))
    keys = [key for key in asked.tolist() if key not in first]
    writer = PromptWriter(settings, texts, tokenizer, item_kind(config.data))
    prompts = [prompt.token_ids for prompt in writer.items(keys)]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(generate_bare, model, settings, config.cluster.num_cpus or 1, prompts).result()
