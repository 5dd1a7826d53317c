"""The only file that knows vLLM and ray.data.llm: from prompts to answers, in whatever order they finish."""

import contextlib
import importlib.util
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask
from ray.data.llm import build_processor, vLLMEngineProcessorConfig
from ray.exceptions import RayActorError, RayError

from sracl_dist.cluster import Cluster
from sracl_dist.columns import ERROR, FINISH_REASON, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, PROMPT_HASH, TEXT
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import SetupError, StageError, last_line
from sracl_dist.precision import cpu_multiplies_bfloat16
from sracl_dist.profiles.answers import ANSWERS, EngineDied
from sracl_dist.profiles.attempts import sampling_of
from sracl_dist.profiles.estimate import CACHE_BLOCK_TOKENS
from sracl_dist.profiles.ledger import PromptSet
from sracl_dist.profiles.prompt_shards import PromptPiece
from sracl_dist.profiles.prompts import Prompt
from sracl_dist.room import require_room
from sracl_dist.run_folder import StageFolder

SMALL_TASK_CPUS = 0.1
"""Share of a core for each of three tasks that only move rows; whole cores would deadlock a small machine."""
NOTICES = ("ray", "ray.data", "ray._private.worker", "ray.llm")
"""Loggers whose notices would drown the job's own lines."""
DEATHS = {"max_restarts": 1, "max_task_retries": -1}
"""An engine that dies starts once more, elsewhere where its node is lost, and gets its prompts again, before whoever
asked hears of it; Ray Data's own limit is none. Calls are tried without end: until Ray knows that a node is lost, more
of them fail than one would allow, and a second death ends them anyway."""
ENGINE_STAGE = "vLLMEngineStage"
MAX_ERROR_CHARS = 300
ERROR_COLUMN = "__inference_error__"


def generate_answers(
    prompts: PromptSet, model: str, config: ProfileConfig, cluster: Cluster, end_token_ids: set[int]
) -> Iterator[pa.Table]:
    """Run the prompts through the engines; yields small tables of `ANSWERS` as they finish.

    A prompt that fails becomes a row with `error` and without `text`; it never stops the others.

    Raises:
        SetupError: vLLM is not usable here.
        EngineDied: an engine that had started died twice.
        StageError: an engine cannot start.
    """
    _check_packages(cluster)
    cpus = _require_room(config, cluster)
    if not cluster.num_gpus:
        # Nodes with processors are taken for alike; the one that runs this task answers for all.
        on_node = ray.remote(num_cpus=SMALL_TASK_CPUS)(cpu_multiplies_bfloat16)
        config = for_cpu(config, multiplies_bfloat16=ray.get(on_node.remote()))
    for name in NOTICES:
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # profile.stall_timeout_s is the only limit
    sampling: dict[str, Any] = {"repetition_penalty": config.repetition_penalty}
    if config.stop:  # an empty list would travel as a column of nulls
        sampling |= {"stop": config.stop, "include_stop_str_in_output": True}

    def before(row: dict[str, Any]) -> dict[str, Any]:
        own = {name: row[name] for name in ("temperature", "seed", "max_tokens")}
        return {"prompt": "", "tokenized_prompt": list(row["tokens"]), "sampling_params": {**sampling, **own}}

    def after(row: dict[str, Any]) -> dict[str, Any]:
        generated = list(row["generated_tokens"])
        ended = (
            len(generated) < row["max_tokens"]
            or generated[-1] in end_token_ids
            or row["generated_text"].endswith(tuple(config.stop))
        )
        return {
            PROMPT_HASH: row[PROMPT_HASH],
            TEXT: (row["answer_start"] + row["generated_text"]).strip() if row["generated_text"].strip() else "",
            FINISH_REASON: "stop" if ended else "length",
            NUM_PROMPT_TOKENS: row["num_input_tokens"],
            NUM_OUTPUT_TOKENS: row["num_generated_tokens"],
        }

    processor = build_processor(
        _processor_config(model, config, cluster, cpus),
        preprocess=before,
        postprocess=after,
        preprocess_map_kwargs={"num_cpus": SMALL_TASK_CPUS},
        postprocess_map_kwargs={"num_cpus": SMALL_TASK_CPUS},
    )
    processor.get_stage_by_name(ENGINE_STAGE).map_batches_kwargs.update(DEATHS)
    answers = processor(prompt_blocks(prompts, config))
    with _engine_errors():
        for batch in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield _to_answers(batch)


def prompt_blocks(prompts: PromptSet, config: ProfileConfig) -> ray.data.Dataset:
    """The prompts in their order, in blocks of `profile.batch_rows`, each read when an engine has room."""
    source = _PromptSource(prompts, config)
    # Blocks of about so many bytes pass from stage to stage; those of megabytes would hold finished answers back.
    ray.data.DataContext.get_current().target_max_block_size = source.block_bytes()
    return ray.data.read_datasource(
        source,
        override_num_blocks=source.num_pieces,
        concurrency=1,  # several shards at a time would mix their prompts
        ray_remote_args={"num_cpus": SMALL_TASK_CPUS},
    )


class _PromptSource(ray.data.Datasource):
    """A task of Ray for every shard of prompts."""

    def __init__(self, prompts: PromptSet, config: ProfileConfig) -> None:
        super().__init__()
        self._folder, self._config = prompts.folder, config
        self._pieces = list(prompts.pieces())
        self.num_pieces = len(self._pieces)

    def block_bytes(self) -> int:
        """A little less than the size of a block, so that each is handed on as it is."""
        first = next(_read_blocks(self._folder, self._pieces[0], self._config))
        return max(1, first.nbytes * 9 // 10)

    def estimate_inmemory_data_size(self) -> None:
        """Unknown."""

    def get_read_tasks(
        self,
        parallelism: int,  # noqa: ARG002
        per_task_row_limit: int | None = None,
        data_context: Any = None,  # noqa: ARG002
    ) -> list[ReadTask]:
        """One for each shard."""
        return [
            ReadTask(
                partial(_read_blocks, self._folder, piece, self._config),
                BlockMetadata(num_rows=len(piece), size_bytes=None, input_files=None, exec_stats=None),
                per_task_row_limit=per_task_row_limit,
            )
            for piece in self._pieces
        ]


def _read_blocks(folder: StageFolder, piece: PromptPiece, config: ProfileConfig) -> Iterator[pa.Table]:
    prompts = piece.read(folder)
    for block in iter(lambda: list(islice(prompts, config.batch_rows)), []):
        yield _to_block(block, config)


def _to_block(prompts: Sequence[Prompt], config: ProfileConfig) -> pa.Table:
    sampling = [sampling_of(prompt, config) for prompt in prompts]
    return pa.table(
        {
            PROMPT_HASH: [prompt.prompt_hash for prompt in prompts],
            "tokens": pa.array([prompt.token_ids for prompt in prompts], pa.list_(pa.int32())),
            "answer_start": [prompt.answer_start for prompt in prompts],
            "temperature": [one.temperature for one in sampling],
            "seed": [one.seed for one in sampling],
            "max_tokens": [one.max_output_tokens for one in sampling],
        }
    )


@contextlib.contextmanager
def _engine_errors() -> Iterator[None]:
    """An engine that cannot start, for want of memory or because it does not know the model, in one sentence."""
    try:
        yield
    except (RayError, RuntimeError, ValueError) as error:
        cause = getattr(error, "cause", None) or error
        kind = EngineDied if _is_death(cause) else StageError
        raise kind(
            f"The language model stopped ({last_line(cause)}); what was answered is kept, fix the cause and run the "
            f"stage again."
        ) from error


def _is_death(cause: BaseException) -> bool:
    """Whether an engine died that had started; one that cannot start says so in its constructor."""
    return isinstance(cause, RayActorError) and not cause.actor_init_failed


def _processor_config(model: str, config: ProfileConfig, cluster: Cluster, cpus: int) -> vLLMEngineProcessorConfig:
    settings: dict[str, Any] = {}
    if not cluster.num_gpus:
        alone = config.num_replicas == 1 and cluster.is_local
        # The processor needs an explicit bundle to ask for no GPU.
        settings["placement_group_config"] = {"bundles": [{"CPU": _reserved_cpus(cpus)}]}
        settings["runtime_env"] = {"env_vars": cpu_environment(config, cpus, alone=alone)}
    return vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs=engine_settings(config, cluster.num_gpus),
        concurrency=(config.num_replicas, config.num_replicas),
        batch_size=config.batch_rows,
        # A batch waits for its longest answer, so that about half of what is handed over is running.
        max_concurrent_batches=max(2, math.ceil(2 * config.max_running_prompts / config.batch_rows)),
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,
        **settings,
    )


def _reserved_cpus(cpus: int) -> float:
    """What Ray sets aside for an engine that computes on `cpus` cores: less, to place the small tasks around it."""
    return cpus - 1 if cpus > 1 else 0.5


def for_cpu(config: ProfileConfig, *, multiplies_bfloat16: bool) -> ProfileConfig:
    """The settings with `auto` decided for engines on a processor."""
    return replace(config, dtype="bfloat16" if multiplies_bfloat16 else "float32") if config.dtype == "auto" else config


def engine_settings(config: ProfileConfig, num_gpus: int) -> dict[str, Any]:
    """Arguments of the engine itself."""
    engine: dict[str, Any] = {
        # A model runs no code of its own, neither next to its weights nor pickled within them.
        "trust_remote_code": False,
        "load_format": "safetensors",
        "dtype": config.dtype,
        "max_model_len": config.max_prompt_tokens + config.max_output_tokens,
        "max_num_seqs": config.max_running_prompts,
        "enable_prefix_caching": True,
        # Only whole answers are of use; handing on every token costs the cores of a CPU engine a tenth of their time.
        "stream_interval": config.max_output_tokens,
        "seed": 0,
    }
    if num_gpus:
        return {**engine, "tensor_parallel_size": config.gpus_per_replica}
    # Compiling for the CPU takes longer than most runs.
    return {**engine, "enforce_eager": True, "block_size": CACHE_BLOCK_TOKENS, "max_num_batched_tokens": 4096}


def cpu_environment(config: ProfileConfig, cpus: int, *, alone: bool) -> dict[str, str]:
    """Environment of an engine on CPU; vLLM's own choice leaves a core idle and puts all engines on the same cores.

    `alone` says that no other engine runs on this machine, so that it can be bound to cores.
    """
    binding = ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:cpus]) if alone else "nobind"
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": binding,
        "OMP_NUM_THREADS": str(cpus),
        "VLLM_LOGGING_LEVEL": "ERROR",
    }


def _to_answers(batch: pa.Table) -> pa.Table:
    """Project to the fixed schema: rows that failed come with the engine's internal columns instead of ours."""
    num_rows = batch.num_rows
    columns: dict[str, Any] = {
        field.name: batch[field.name].cast(field.type) if field.name in batch.column_names else pa.nulls(num_rows)
        for field in ANSWERS
    }
    failures = batch[ERROR_COLUMN].to_pylist() if ERROR_COLUMN in batch.column_names else [None] * num_rows
    columns[ERROR] = [failure[:MAX_ERROR_CHARS] if failure else None for failure in failures]
    return pa.table(columns, schema=ANSWERS)


def _require_room(config: ProfileConfig, cluster: Cluster) -> int:
    """Refuse what is known to wait for ever; returns the cores that an engine without a GPU computes on, else 0."""
    if cluster.num_gpus:
        require_room(config.num_replicas, 0, config.gpus_per_replica, "profile.num_replicas")
        return 0
    cpus = config.cpus_per_replica or cluster.cpus_for_each(config.num_replicas)
    require_room(config.num_replicas, _reserved_cpus(cpus), 0, "profile.num_replicas")
    if config.num_replicas * _reserved_cpus(cpus) > cluster.num_cpus - 3 * SMALL_TASK_CPUS:
        raise SetupError(
            f"{config.num_replicas} engines leave none of the cluster's {cluster.num_cpus} CPUs for the tasks "
            f"around them; lower profile.num_replicas or profile.cpus_per_replica."
        )
    return cpus


def _check_packages(cluster: Cluster) -> None:
    """Refuse what is known to break in the middle of a run."""
    if importlib.util.find_spec("vllm") is None:
        raise SetupError("vLLM is not installed; install the extra cpu or gpu of this package.")
    import torch

    if torch.version.cuda is None and importlib.util.find_spec("torchvision") is not None:
        raise SetupError("torchvision next to the CPU build of torch breaks transformers; uninstall torchvision.")
    if cluster.num_gpus == 0 and torch.version.cuda is not None:
        raise SetupError("The GPU build of torch is installed but the cluster has no GPU; install the extra cpu.")
