"""profile: every item's and user's profile, each distinct prompt answered once and never again.

Answers live in `generated/`, addressed by the hash of prompt, model and sampling, and survive a change of settings:
a new template or model asks only what it touches, and a killed stage goes on where it was.
"""

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.columns import (
    ERROR,
    FINISH_REASON,
    FLAWS,
    KEY,
    MODEL,
    NUM_OUTPUT_TOKENS,
    NUM_PROMPT_TOKENS,
    PROMPT_HASH,
    TEXT,
)
from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.data.public_sets import item_kind
from sracl_dist.errors import StageError
from sracl_dist.observe import say
from sracl_dist.profiles import quality
from sracl_dist.profiles.asking import answer_all, started_engine
from sracl_dist.profiles.estimate import shown_prompt
from sracl_dist.profiles.from_file import take_profiles
from sracl_dist.profiles.language_model import model_and_tokenizer
from sracl_dist.profiles.plan import Plan, make_plan
from sracl_dist.profiles.rate import rate_name
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.table import write_profiles
from sracl_dist.profiles.template import load_chats
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import StageResult


def generate_profiles(config: Config, run: RunFolder) -> StageResult:
    """Write `items.parquet` and `users.parquet`, one row per profiled item or user.

    Raises:
        StageError: more than `profile.max_failed_share` of the prompts have no answer, or the engine stalls.
        SetupError: the model, vLLM or the endpoint cannot be used.
        InputError: finished profiles cannot be taken from the files.
    """
    folder, settings = run.stage("profile"), config.profile
    if settings.engine == "file":
        return take_profiles(config, run)
    kind = item_kind(config.data)
    rules = quality.answer_rules(load_chats(settings, kind).values())
    store = AnswerStore(folder, rules)
    model, tokenizer = model_and_tokenizer(settings)
    plan = make_plan(settings, load_training_texts(run), tokenizer, store, kind)
    _say_estimate(plan, settings)
    started, num_retried = time.monotonic(), 0
    if len(plan.to_ask):
        with started_engine(config, model) as ask:
            num_retried = answer_all(plan.to_ask, ask, store, settings, rules)
    generate_s = time.monotonic() - started
    store.compact()
    best = store.best()
    tables = {kind: join_answers(rows, best, settings.model, rules) for kind, rows in plan.rows.items()}
    refuse_failures(tables.values(), settings.max_failed_share)
    for kind, table in tables.items():
        write_profiles(folder, kind, table)
    details = {
        "num_generated": len(plan.to_ask),
        "num_retried": num_retried,
        "num_given_up": plan.estimate.num_given_up,
        **counts(tables.values()),
        "estimated_shared_share": plan.estimate.shared_share,
        "output_tokens_per_s": rate.output_tokens_per_s if (rate := store.rate(rate_name(settings))) else None,
        "generate_s": round(generate_s, 1),
    }
    return StageResult(
        rows={kind: table.num_rows for kind, table in tables.items()},
        details=details,
        summary=[
            f"{details['num_generated']:,} answers generated, {num_retried:,} asked once more, "
            f"{details['num_failed']:,} failed{_why_failed(details)}, "
            f"{details['num_truncated']:,} cut at profile.max_output_tokens={settings.max_output_tokens}, "
            f"{details['num_repetitive']:,} repetitive"
        ],
    )


def estimate_profiles(config: Config, run: RunFolder) -> None:
    """Say what the stage would ask and what it would cost, and show three prompts; nothing is asked or written."""
    settings = config.profile
    if settings.engine == "file":
        say("profile: profiles are taken from profile.files and nobody is asked; leave out --dry-run to take them")
        return
    _, tokenizer = model_and_tokenizer(settings)
    kind = item_kind(config.data)
    store = AnswerStore(run.stage("profile"), quality.answer_rules(load_chats(settings, kind).values()))
    plan = make_plan(settings, load_training_texts(run), tokenizer, store, kind)
    _say_estimate(plan, settings)
    for prompt in plan.samples:
        say(f"profile: the prompt of {prompt.kind} {prompt.key}, {prompt.num_tokens:,} tokens:")
        for line in shown_prompt(prompt, tokenizer).split("\n"):
            say(line)
    say("profile: nothing was asked; leave out --dry-run to start")


def _say_estimate(plan: Plan, settings: ProfileConfig) -> None:
    for line in plan.estimate.lines(settings):
        say(f"profile: {line}")


def join_answers(rows: pa.Table, best: pa.Table, model: str, rules: quality.AnswerRules) -> pa.Table:
    """One row per prompt with what the store says about it; a failed one has an error and no text."""
    found = best.take(pc.index_in(rows[PROMPT_HASH], value_set=best[PROMPT_HASH].combine_chunks()))
    was_asked = pc.is_valid(found[PROMPT_HASH])
    errors = pc.if_else(was_asked, found[ERROR], "no answer was received")
    counted = pc.if_else(pc.greater(found[NUM_PROMPT_TOKENS], 0), found[NUM_PROMPT_TOKENS], None)
    texts = found[TEXT].to_pylist()
    answers = zip(texts, found[FINISH_REASON].to_pylist(), errors.to_pylist(), strict=True)
    flaws = [_flaws(text, reason, error, rules) for text, reason, error in answers]
    return pa.table(
        {
            KEY: rows[KEY],
            PROMPT_HASH: rows[PROMPT_HASH],
            TEXT: pc.if_else(pc.is_null(errors), pa.array(map(quality.answer_of, texts), pa.string()), None),
            FINISH_REASON: found[FINISH_REASON],
            NUM_PROMPT_TOKENS: pc.coalesce(counted, rows[NUM_PROMPT_TOKENS]),
            NUM_OUTPUT_TOKENS: found[NUM_OUTPUT_TOKENS],
            MODEL: pa.array([model] * rows.num_rows, pa.string()),
            FLAWS: pa.array(flaws, pa.list_(pa.string())),
            ERROR: errors,
        }
    )


def _flaws(text: str | None, finish_reason: str | None, error: str | None, rules: quality.AnswerRules) -> list[str]:
    """What is wrong with the text; an error that the text does not explain is the engine's."""
    if not (error or "").startswith(quality.failure_of(text, rules) or ""):
        return []
    return quality.flaws_of(text, finish_reason, rules)


def counts(tables: Iterable[pa.Table]) -> dict[str, int]:
    """Failures, flaws and tokens of all rows."""
    both = pa.concat_tables(tables)
    flaws = Counter(pc.list_flatten(both[FLAWS]).to_pylist())
    return {
        "num_failed": both.num_rows - both[ERROR].null_count,
        **{_count_name(flaw): flaws[flaw] for flaw in quality.FLAWS},
        "num_prompt_tokens": pc.sum(both[NUM_PROMPT_TOKENS]).as_py() or 0,
        "num_output_tokens": pc.sum(both[NUM_OUTPUT_TOKENS]).as_py() or 0,
    }


def _why_failed(details: dict[str, Any]) -> str:
    """The failures that the texts explain, in brackets."""
    numbers = {flaw: details[_count_name(flaw)] for flaw in quality.FAILURES}
    told = ", ".join(f"{num:,} {flaw}" for flaw, num in numbers.items() if num)
    return f" ({told})" if told else ""


def _count_name(flaw: str) -> str:
    return f"num_{flaw.replace('-', '_')}"


def refuse_failures(tables: Iterable[pa.Table], max_failed_share: float) -> None:
    """Raise StageError where too many rows have no answer, with the commonest reasons."""
    errors = [error for table in tables for error in table[ERROR].to_pylist()]
    failures = Counter(error for error in errors if error)
    num_failed = failures.total()
    if num_failed > max_failed_share * len(errors):
        commonest = "; ".join(f"{num:,} times: {error}" for error, num in failures.most_common(3))
        raise StageError(
            f"{num_failed:,} of {len(errors):,} prompts have no answer ({commonest}); mend the cause and run the stage "
            f"again, which asks only those that have failed less than profile.max_attempts times, or raise "
            f"profile.max_failed_share={max_failed_share}."
        )
