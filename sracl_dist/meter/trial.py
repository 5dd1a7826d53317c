"""profile --trial: a sample is profiled, by several models or templates if wished, and measured before all is paid for.

Answers go to the run's own store under their hashes, so that a later run of the stage does not ask them again. Nothing
else of the run folder is changed.
"""

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from sracl_dist.cluster import connected, map_shards
from sracl_dist.columns import ERROR, FLAWS, KEY, NUM_OUTPUT_TOKENS, NUM_PROMPT_TOKENS, TEXT
from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.data.public_sets import item_kind
from sracl_dist.errors import SetupError, StorageError
from sracl_dist.meter.described import KINDS, Profiles, Scene
from sracl_dist.meter.encoding import encode_all
from sracl_dist.meter.job import SEED
from sracl_dist.meter.sample import Sample, connected_sample
from sracl_dist.meter.trial_page import Asked, show_trial
from sracl_dist.observe import say
from sracl_dist.profiles.asking import answer_all, started_engine
from sracl_dist.profiles.from_file import finished_profiles
from sracl_dist.profiles.joining import ROWS, answers_of, join_answers, joins
from sracl_dist.profiles.language_model import model_and_tokenizer
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.plan import make_plan
from sracl_dist.profiles.prompt_shards import build_prompts, shards_of
from sracl_dist.profiles.quality import answer_rules
from sracl_dist.profiles.rate import num_replicas, rate_name
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.template import load_chats
from sracl_dist.profiles.texts import TrainingTexts, load_training_texts
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.run_folder.owner import read_started
from sracl_dist.sequences import load_sequences
from sracl_dist.stages import STAGES, stage_status
from sracl_dist.tasks import Tasks

STAGE = STAGES["profile"]


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
            if variant.config.profile.engine == "file":
                asked[variant.name] = _taken(variant, sample, run, texts)
            else:
                asked[variant.name] = _ask(variant, sample, run, texts, folder)
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


def _taken(variant: Variant, sample: Sample, run: RunFolder, texts: TrainingTexts) -> Asked:
    """Profiles of the sample from files."""
    tables = {}
    for kind in KINDS:
        keys = pa.array(sample.keys(kind), pa.int64())
        found = finished_profiles(variant.config, run, kind)
        tables[kind] = found.take(pc.index_in(keys, value_set=found[KEY].combine_chunks()))
    return _asked(variant, tables, texts, num_asked=0, seconds=None, tokens_per_s=None)


def _ask(variant: Variant, sample: Sample, run: RunFolder, texts: TrainingTexts, folder: StageFolder) -> Asked:
    settings, here = variant.config.profile, Tasks(num_workers=0)
    rules = answer_rules(load_chats(settings, item_kind(variant.config.data)).values())
    store = AnswerStore(folder, rules)
    model, tokenizer = model_and_tokenizer(settings)
    shards = shards_of({kind: sample.keys(kind) for kind in KINDS})
    with tempfile.TemporaryDirectory(prefix="sracl-prompts-") as place:
        prompts = RunFolder(place).stage(STAGE.name)
        build_prompts(here, prompts, shards, variant.config, run, tokenizer)
        plan = make_plan(settings, prompts, shards, store, store.best())
        say(f"profile: {variant.name}: {plan.estimate.num_distinct:,} prompts, {len(plan.to_ask):,} to ask")
        started = time.monotonic()
        if len(plan.to_ask):
            with started_engine(variant.config, model) as ask:
                answer_all(plan.to_ask, plan.ledger, ask, store, settings, rules)
        seconds = time.monotonic() - started
        store.compact()
        tables: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
        for shard, join in zip(shards, joins(shards, plan.hashes, store.best()), strict=True):
            rows = prompts.read_table(join.prompts.name, list(ROWS))
            tables[shard.kind].append(join_answers(rows, answers_of(folder, join), settings.model, rules))
    rate = store.rate(rate_name(settings))
    return _asked(
        variant,
        {kind: pa.concat_tables(parts) for kind, parts in tables.items()},
        texts,
        num_asked=len(plan.to_ask),
        seconds=seconds if len(plan.to_ask) else None,
        tokens_per_s=rate.output_tokens_per_s * num_replicas(settings) if rate else None,
    )


def _asked(
    variant: Variant,
    tables: dict[str, pa.Table],
    texts: TrainingTexts,
    *,
    num_asked: int,
    seconds: float | None,
    tokens_per_s: float | None,
) -> Asked:
    """What came of the sample, given a row for each of its keys in order, with the columns of the stage's tables."""
    settings = variant.config.profile
    flaws = Counter(flaw for table in tables.values() for own in table[FLAWS].to_pylist() for flaw in own or ())
    flaws["failed"] = sum(table.num_rows - table[ERROR].null_count for table in tables.values())
    return Asked(
        overrides=variant.overrides,
        settings=settings,
        texts={kind: table[TEXT].to_pylist() for kind, table in tables.items()},
        num_asked=num_asked,
        num_prompt_tokens=_sums(tables, NUM_PROMPT_TOKENS),
        num_output_tokens=_sums(tables, NUM_OUTPUT_TOKENS),
        seconds=seconds,
        tokens_per_s=tokens_per_s,
        flaws=flaws,
        num_all=_num_all(settings, texts),
    )


def _sums(tables: dict[str, pa.Table], name: str) -> dict[str, int]:
    return {kind: pc.sum(table[name]).as_py() or 0 for kind, table in tables.items()}


def _num_all(settings: ProfileConfig, texts: TrainingTexts) -> dict[str, int]:
    """How many items and users the stage profiles."""
    return {
        "items": min(texts.num_items, texts.num_items if settings.max_items is None else settings.max_items),
        "users": min(texts.num_users, texts.num_users if settings.max_users is None else settings.max_users),
    }
