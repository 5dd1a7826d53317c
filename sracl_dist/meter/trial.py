"""profile --trial: a sample is profiled, by several models or templates if wished, and measured before all is paid for.

Answers go to the run's own store under their hashes, so that a later run of the stage does not ask them again. Nothing
else of the run folder is changed.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from sracl_dist.cluster import connected, map_shards
from sracl_dist.columns import (
    ATTEMPT,
    ERROR,
    FINISH_REASON,
    NUM_OUTPUT_TOKENS,
    NUM_PROMPT_TOKENS,
    PROMPT_HASH,
    TEXT,
)
from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.data.public_sets import item_kind
from sracl_dist.errors import SetupError, StorageError
from sracl_dist.meter.described import KINDS, Profiles, Scene
from sracl_dist.meter.encoding import encode_all
from sracl_dist.meter.job import SEED
from sracl_dist.meter.sample import Sample, connected_sample
from sracl_dist.meter.trial_page import Asked, show_trial
from sracl_dist.observe import Progress, say
from sracl_dist.profiles.asking import started_engine
from sracl_dist.profiles.language_model import model_and_tokenizer
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.prompts import Prompt, PromptWriter
from sracl_dist.profiles.quality import AnswerRules, answer_of, answer_rules, flaws_of
from sracl_dist.profiles.rate import RateMeter, num_replicas
from sracl_dist.profiles.store import STORED, AnswerStore
from sracl_dist.profiles.template import load_chats
from sracl_dist.profiles.texts import TrainingTexts, load_training_texts
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.run_folder.owner import read_started
from sracl_dist.sequences import load_sequences
from sracl_dist.stages import STAGES, stage_status

STAGE = STAGES["profile"]
FIRST_ATTEMPT = 1


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of writing profiles."""

    name: str
    overrides: str
    """What differs from the configuration, as it was given."""
    config: Config


def try_profiles(run: RunFolder, variants: Sequence[Variant], num_rows: int) -> None:
    """Profile the sample in every way, and say what each is worth and costs, with examples.

    Args:
        run: whose prepare is done.
        variants: the configuration itself first.
        num_rows: items and users to profile, each.

    Raises:
        SetupError: the log has too few items or users to measure anything.
    """
    first, sequences = variants[0].config, load_sequences(run)
    sample = connected_sample(sequences, num_rows, SEED)
    if not sample.is_enough:
        raise SetupError(
            f"The trial has {len(sample.items):,} items and {len(sample.users):,} users with training interactions, "
            f"too few to measure anything; use --trial with a higher number or a larger log."
        )
    texts = load_training_texts(run)
    asked = {}
    with _store_folder(first, run) as folder:
        for variant in variants:
            asked[variant.name] = _ask(variant, sample, texts, folder)
    scene = Scene(run, sample, sequences, texts, first.embed.items_per_user)
    profiles: dict[str, Profiles] = {f"{name} ": one.texts for name, one in asked.items()}
    with connected(first.cluster) as cluster:
        spread = partial(
            map_shards,
            num_workers=first.embed.num_workers,
            cpus_per_worker=1 if cluster.num_gpus else cluster.cpus_for_each(first.embed.num_workers),
            gpus_per_worker=1 if cluster.num_gpus else 0,
        )
        model = resolve_model(first.embed.model)
        ways = scene.weigh(profiles, lambda several: encode_all(several, first.embed, model, spread))
    show_trial(scene, ways, asked)


@contextlib.contextmanager
def _store_folder(config: Config, run: RunFolder) -> Iterator[StageFolder]:
    """The stage's folder, to write answers into; what is finished there is finished afterwards, too."""
    manifest = None
    with contextlib.suppress(StorageError):  # a damaged one is the stage's affair
        manifest = run.stage(STAGE.name).manifest()
    started = read_started(run.stage(STAGE.name).plain)
    fingerprint = stage_status(STAGE, config, run).draft.fingerprint
    if manifest is not None:
        fingerprint = manifest.fingerprint
    elif started is not None and started.fingerprint is not None:
        fingerprint = started.fingerprint
    # As the work that is there: as any other it would delete what that has made.
    with run.working_on(STAGE.name, fingerprint, keep=STAGE.keep) as folder:
        try:
            yield folder
        finally:
            if manifest is not None and not folder.damaged_before:
                folder.commit(manifest)


def _ask(variant: Variant, sample: Sample, texts: TrainingTexts, folder: StageFolder) -> Asked:
    settings = variant.config.profile
    noun = item_kind(variant.config.data)
    rules = answer_rules(load_chats(settings, noun).values())
    store = AnswerStore(folder, rules)
    model, tokenizer = model_and_tokenizer(settings)
    writer = PromptWriter(settings, texts, tokenizer, noun)
    prompts = {
        "items": list(writer.items(sample.items.tolist())),
        "users": list(writer.users(sample.users.tolist())),
    }
    known = set(store.best()[PROMPT_HASH].to_pylist())
    distinct = {prompt.prompt_hash: prompt for kind in KINDS for prompt in prompts[kind]}
    missing = [prompt for hash_, prompt in distinct.items() if hash_ not in known]
    say(f"profile: {variant.name}: {len(distinct):,} prompts, {len(missing):,} to ask")
    started, rate = time.monotonic(), RateMeter(num_replicas(settings))
    if missing:
        with started_engine(variant.config, model) as ask:
            _commit_all(ask(missing), store, settings, rate, len(missing))
    seconds = time.monotonic() - started
    store.compact()
    measured = rate.rate()
    return _asked(
        variant,
        prompts,
        _rows_of(store, distinct),
        rules,
        num_asked=len(missing),
        seconds=seconds if missing else None,
        tokens_per_s=measured.output_tokens_per_s * num_replicas(settings) if measured else None,
        num_all=_num_all(settings, texts),
    )


def _commit_all(
    batches: Iterator[pa.Table], store: AnswerStore, settings: ProfileConfig, rate: RateMeter, num_prompts: int
) -> None:
    """Keep the answers as they come, about every `profile.commit_interval_s`, whatever ends the asking."""
    progress, committed = Progress("profile: trial", num_prompts), time.monotonic()
    waiting: list[pa.Table] = []
    try:
        with contextlib.closing(batches):  # type: ignore[type-var]
            for answers in batches:
                attempts = pa.array([FIRST_ATTEMPT] * answers.num_rows, pa.int32())
                waiting.append(answers.append_column(STORED.field(ATTEMPT), attempts))
                rate.add(answers.num_rows, sum(filter(None, answers[NUM_OUTPUT_TOKENS].to_pylist())))
                progress.update(answers.num_rows)
                if time.monotonic() - committed >= settings.commit_interval_s:
                    store.commit(waiting)
                    waiting, committed = [], time.monotonic()
    finally:
        store.commit(waiting)
        progress.close()


def _rows_of(store: AnswerStore, wanted: dict[str, Prompt]) -> dict[str, dict[str, object]]:
    """What the store has of the prompts, by hash."""
    columns = [PROMPT_HASH, TEXT, FINISH_REASON, NUM_PROMPT_TOKENS, NUM_OUTPUT_TOKENS, ERROR]
    rows = store.best().select(columns).to_pylist()
    return {row[PROMPT_HASH]: row for row in rows if row[PROMPT_HASH] in wanted}


def _asked(
    variant: Variant,
    prompts: dict[str, list[Prompt]],
    rows: dict[str, dict[str, object]],
    rules: AnswerRules,
    *,
    num_asked: int,
    seconds: float | None,
    tokens_per_s: float | None,
    num_all: dict[str, int],
) -> Asked:
    found: dict[str, list[str | None]] = {kind: [] for kind in KINDS}
    num_prompt_tokens, num_output_tokens = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    flaws: Counter[str] = Counter()
    for kind in KINDS:
        for prompt in prompts[kind]:
            row = rows.get(prompt.prompt_hash, {ERROR: "no answer was received"})
            text = row.get(TEXT)
            is_usable = row[ERROR] is None and isinstance(text, str)
            found[kind].append(answer_of(str(text)) if is_usable else None)
            num_prompt_tokens[kind] += _count(row.get(NUM_PROMPT_TOKENS)) or prompt.num_tokens
            num_output_tokens[kind] += _count(row.get(NUM_OUTPUT_TOKENS))
            flaws["failed"] += not is_usable
            if is_usable:
                flaws.update(flaws_of(str(text), str(row.get(FINISH_REASON)), rules))
    return Asked(
        overrides=variant.overrides,
        settings=variant.config.profile,
        texts=found,
        num_asked=num_asked,
        num_prompt_tokens=num_prompt_tokens,
        num_output_tokens=num_output_tokens,
        seconds=seconds,
        tokens_per_s=tokens_per_s,
        flaws=flaws,
        num_all=num_all,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _num_all(settings: ProfileConfig, texts: TrainingTexts) -> dict[str, int]:
    """How many items and users the stage profiles."""
    return {
        "items": min(texts.num_items, texts.num_items if settings.max_items is None else settings.max_items),
        "users": min(texts.num_users, texts.num_users if settings.max_users is None else settings.max_users),
    }
