"""profile: every item's and user's profile, each distinct prompt answered once and never again.

Answers live in `generated/`, addressed by the hash of prompt, model and sampling, and survive a change of settings:
a new template or model asks only what it touches, and a killed stage goes on where it was.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from sracl_dist.artifacts import RunFolder, StageFolder
from sracl_dist.columns import (
    ERROR,
    FINISH_REASON,
    KEY,
    MODEL,
    NUM_OUTPUT_TOKENS,
    NUM_PROMPT_TOKENS,
    PROMPT_HASH,
    TEXT,
)
from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.errors import SetupError, StageError, first_line
from sracl_dist.observe import Progress, say
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.prompts import Prompt, PromptWriter
from sracl_dist.profiles.texts import TrainingTexts, load_training_texts
from sracl_dist.stages import StageResult

STORE = "generated/"
KINDS = ("items", "users")


def generate_profiles(config: Config, run: RunFolder) -> StageResult:
    """Write `items.parquet` and `users.parquet`, one row per profiled item or user.

    Raises:
        StageError: more than `profile.max_failed_share` of the prompts have no answer.
        SetupError: the model or vLLM cannot be used.
    """
    folder, settings = run.stage("profile"), config.profile
    model = resolve_model(settings.model)
    _require_context(model, settings)
    prompts = _write_prompts(settings, load_training_texts(run), _load_tokenizer(model, settings.model))
    answered = _answered_hashes(folder)
    missing = list({prompt.prompt_hash: prompt for prompt in prompts if prompt.prompt_hash not in answered}.values())
    distinct = len({prompt.prompt_hash for prompt in prompts})
    say(f"profile: {len(prompts):,} prompts, {distinct:,} distinct, {distinct - len(missing):,} answered before")
    started = time.monotonic()
    if missing:
        _answer(missing, model, config, folder)
    generate_s = time.monotonic() - started
    answers = _read_store(folder)
    _compact(folder, answers)
    tables = {kind: _profiles(prompts, kind, answers, settings.model) for kind in KINDS}
    details = _details(tables, len(missing), generate_s)
    _refuse_failures(tables.values(), settings.max_failed_share)
    for kind, table in tables.items():
        folder.write_table(f"{kind}.parquet", table)
    return StageResult(
        rows={kind: table.num_rows for kind, table in tables.items()},
        details=details,
        summary=[
            f"{details['num_generated']:,} answers generated, {details['num_failed']:,} failed, "
            f"{details['num_truncated']:,} cut at profile.max_output_tokens={settings.max_output_tokens}"
        ],
    )


def _write_prompts(settings: ProfileConfig, texts: TrainingTexts, tokenizer: object) -> list[Prompt]:
    writer = PromptWriter(settings, texts, tokenizer)
    # An item without training interactions still has attributes; a user without them has nothing to say.
    items = _first(texts.num_training()[1:], settings.max_items, least=0) + 1
    lengths = np.array([len(texts.history(user)) for user in range(texts.num_users)])
    users = _first(lengths, settings.max_users, least=1)
    progress = Progress("profile: prompts", len(items) + len(users), "prompts")
    prompts = []
    for iterator in (writer.items(items.tolist()), writer.users(users.tolist())):
        for prompt in iterator:
            prompts.append(prompt)
            progress.update(1)
    progress.close()
    return prompts


def _first(counts: np.ndarray, limit: int | None, least: int) -> np.ndarray:
    """Indices with a count of `least` or more, all in order or the `limit` highest; ties go to the lower index."""
    indices = np.flatnonzero(counts >= least)
    if limit is None or limit >= len(indices):
        return indices
    order = np.argsort(-counts[indices], kind="stable")
    return np.sort(indices[order[:limit]])


def _load_tokenizer(model: str, name: str) -> object:
    from transformers import AutoTokenizer

    with _loading_errors(name):
        return AutoTokenizer.from_pretrained(model)


def _require_context(model: str, settings: ProfileConfig) -> None:
    """Refuse prompts and answers that are together longer than the model reads."""
    from transformers import AutoConfig

    with _loading_errors(settings.model):
        longest = getattr(AutoConfig.from_pretrained(model).get_text_config(), "max_position_embeddings", None)
    wanted = settings.max_prompt_tokens + settings.max_output_tokens
    if longest is not None and wanted > longest:
        raise SetupError(
            f"profile.max_prompt_tokens and profile.max_output_tokens are {wanted} together and {settings.model} reads "
            f"{longest}; lower one of them."
        )


@contextlib.contextmanager
def _loading_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise SetupError(f"The model {name} cannot be loaded ({reason}); set profile.model to another one.") from None


def _answer(missing: list[Prompt], model: str, config: Config, folder: StageFolder) -> None:
    """Generate and commit; what is committed is never asked again, whenever the stage is killed."""
    from sracl_dist.cluster import connected
    from sracl_dist.profiles.engine import generate_answers

    progress = Progress("profile: answers", len(missing), "rows")
    say("profile: starting the language model")
    pending: list[pa.Table] = []
    committed, num_tokens, num_failed = time.monotonic(), 0, 0
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: _commit(folder, pending))
        cluster = stack.enter_context(connected(config.cluster))
        for answers in generate_answers(missing, model, config.profile, cluster, _end_token_ids(model)):
            pending.append(answers)
            num_tokens += sum(filter(None, answers[NUM_OUTPUT_TOKENS].to_pylist()))
            num_failed += answers.num_rows - answers[ERROR].null_count
            rate = num_tokens / max(progress.elapsed_s, 1.0)
            progress.update(answers.num_rows, **{"tokens/s": round(rate), "failed": num_failed})
            if time.monotonic() - committed >= config.profile.commit_interval_s:
                _commit(folder, pending)
                pending.clear()
                committed = time.monotonic()
    progress.close()


def _end_token_ids(model: str) -> set[int]:
    """Tokens that end an answer, by the model's own settings."""
    from transformers import GenerationConfig

    try:
        ends = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        return set()
    return set(ends) if isinstance(ends, list) else {ends}


def _commit(folder: StageFolder, pending: list[pa.Table]) -> None:
    if pending:
        folder.write_table(f"{STORE}{time.time_ns():020d}.parquet", pa.concat_tables(pending))


def _read_store(folder: StageFolder, columns: list[str] | None = None) -> pa.Table | None:
    """All answers, and the failures among them."""
    return folder.read_shards(STORE, columns) if folder.files(STORE) else None


def _answered_hashes(folder: StageFolder) -> set[str]:
    store = _read_store(folder, [PROMPT_HASH, ERROR])
    if store is None:
        return set()
    usable = store.filter(pa.compute.is_null(store[ERROR]))
    return set(usable[PROMPT_HASH].to_pylist())


def _compact(folder: StageFolder, answers: pa.Table | None) -> None:
    """Replace many small files by one; a kill in between leaves doubles, which reading resolves."""
    names = folder.files(STORE)
    if answers is not None and len(names) > 1:
        folder.write_table(f"{STORE}{time.time_ns():020d}.parquet", answers)
        folder.delete(names)


def _profiles(prompts: list[Prompt], kind: str, answers: pa.Table | None, model: str) -> pa.Table:
    """Join prompts with answers by hash; where a prompt was asked again after a failure, the answer counts."""
    mine = [prompt for prompt in prompts if prompt.kind == kind]
    failures_first = [] if answers is None else sorted(answers.to_pylist(), key=lambda row: row[ERROR] is None)
    rows = {row[PROMPT_HASH]: row for row in failures_first}
    found = [rows.get(prompt.prompt_hash, {ERROR: "no answer was received"}) for prompt in mine]
    return pa.table(
        {
            KEY: pa.array([prompt.key for prompt in mine], pa.int64()),
            PROMPT_HASH: pa.array([prompt.prompt_hash for prompt in mine], pa.string()),
            TEXT: pa.array([row.get(TEXT) for row in found], pa.string()),
            FINISH_REASON: pa.array([row.get(FINISH_REASON) for row in found], pa.string()),
            NUM_PROMPT_TOKENS: pa.array([len(prompt.token_ids) for prompt in mine], pa.int32()),
            NUM_OUTPUT_TOKENS: pa.array([row.get(NUM_OUTPUT_TOKENS) for row in found], pa.int32()),
            MODEL: pa.array([model] * len(mine), pa.string()),
            ERROR: pa.array([row.get(ERROR) for row in found], pa.string()),
        }
    )


def _details(tables: dict[str, pa.Table], num_generated: int, generate_s: float) -> dict[str, object]:
    both = pa.concat_tables(tables.values())
    return {
        "num_generated": num_generated,
        "num_failed": both.num_rows - both[ERROR].null_count,
        "num_truncated": both[FINISH_REASON].to_pylist().count("length"),
        "num_prompt_tokens": sum(both[NUM_PROMPT_TOKENS].to_pylist()),
        "num_output_tokens": sum(filter(None, both[NUM_OUTPUT_TOKENS].to_pylist())),
        "generate_s": round(generate_s, 1),
    }


def _refuse_failures(tables: Iterable[pa.Table], max_failed_share: float) -> None:
    errors = [error for table in tables for error in table[ERROR].to_pylist()]
    failures = Counter(error for error in errors if error)
    num_failed = failures.total()
    if num_failed > max_failed_share * len(errors):
        commonest = "; ".join(f"{num:,} times: {error}" for error, num in failures.most_common(3))
        raise StageError(
            f"{num_failed:,} of {len(errors):,} prompts have no answer ({commonest}); mend the cause and run the stage "
            f"again, which asks only those, or raise profile.max_failed_share={max_failed_share}."
        )
