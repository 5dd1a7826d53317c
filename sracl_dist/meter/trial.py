"""profile --trial: a sample is profiled, by several models or templates if wished, and measured before all is paid for.

Answers end in the run's own store under their hashes, so that a later run of the stage does not ask them again; see
`trial_store`. The stage's tables are not touched.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.cluster import connected
from sracl_dist.columns import ERROR, FLAWS, TEXT
from sracl_dist.config import Config
from sracl_dist.config.sections.vectors import MAX_METER_ROWS, MIN_METER_ROWS
from sracl_dist.data.public_sets import item_kind
from sracl_dist.embed.workers import spread_over
from sracl_dist.errors import ConfigError, SetupError
from sracl_dist.meter.described import MeteredSample, Profiles, Shown
from sracl_dist.meter.encoding import encode_all
from sracl_dist.meter.job import SEED
from sracl_dist.meter.sample import Sample, connected_sample
from sracl_dist.meter.trial_page import VariantResult, show_trial
from sracl_dist.meter.trial_store import STAGE, TrialStore, keep_answers
from sracl_dist.observe import say
from sracl_dist.profiles.asking import answer_all, started_engine
from sracl_dist.profiles.from_file import finished_profiles
from sracl_dist.profiles.joining import ROWS, answers_of, join_answers, joins
from sracl_dist.profiles.language_model import model_and_tokenizer
from sracl_dist.profiles.models import resolve_model
from sracl_dist.profiles.plan import Plan, chosen_keys, make_plan
from sracl_dist.profiles.prompt_shards import PromptShard, build_prompts, shards_of
from sracl_dist.profiles.quality import AnswerRules, answer_rules
from sracl_dist.profiles.rate import num_replicas, rate_name
from sracl_dist.profiles.table import KINDS
from sracl_dist.profiles.template import load_chats
from sracl_dist.profiles.texts import TrainingTexts, load_training_texts
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.sequences import load_sequences
from sracl_dist.tasks import Tasks


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way of writing profiles."""

    name: str
    overrides: str
    """What differs from the configuration, as it was given."""
    config: Config

    @property
    def rules(self) -> AnswerRules:
        """What makes its answers unusable."""
        return answer_rules(load_chats(self.config.profile, item_kind(self.config.data)).values())


def try_profiles(run: RunFolder, variants: Sequence[Variant], num_rows: int) -> None:
    """Profile the sample in every way, and say what each is worth and costs, with examples.

    Args:
        run: whose prepare is done.
        variants: the configuration itself first.
        num_rows: items and users to profile, each.

    Raises:
        ConfigError: the number of rows is too low or too high.
        SetupError: the log has too few items or users to measure anything.
    """
    if not MIN_METER_ROWS <= num_rows <= MAX_METER_ROWS:
        raise ConfigError(f"--trial is {num_rows:,}; use {MIN_METER_ROWS:,} to {MAX_METER_ROWS:,}.")
    first, sequences = variants[0].config, load_sequences(run)
    sample = connected_sample(sequences, num_rows, SEED)
    if not sample.is_enough(KINDS):
        raise SetupError(
            f"The log has {len(sample.items):,} items and {len(sample.users):,} users with training interactions, "
            f"too few to measure anything; use a larger log."
        )
    texts = load_training_texts(run)
    results = _results(run, variants, sample, texts)
    shown = Shown.of([variant.config for variant in variants])
    metered = MeteredSample(run, sample, sequences, texts, first.embed.items_per_user, shown)
    profiles: dict[str, Profiles] = {f"{name} ": result.texts for name, result in results.items()}
    with connected(first.cluster) as cluster:
        spread, model = spread_over(cluster, first.embed), resolve_model(first.embed.model)
        ways = metered.measure(profiles, lambda several: encode_all(several, first.embed, model, spread))
    show_trial(metered, ways, results)


def _results(
    run: RunFolder, variants: Sequence[Variant], sample: Sample, texts: TrainingTexts
) -> dict[str, VariantResult]:
    """What every variant says of the sample; the answers are in the run's store afterwards, whatever happens."""
    first = variants[0]
    with tempfile.TemporaryDirectory(prefix="sracl-trial-") as place:
        own = RunFolder(place).stage(STAGE.name)
        results = {}
        try:
            for variant in variants:
                is_asked = variant.config.profile.engine != "file"
                results[variant.name] = (
                    _ask(variant, sample, run, texts, own) if is_asked else _profiles_from_files(variant, sample, run)
                )
        finally:
            engines = [rate_name(variant.config.profile) for variant in variants]
            keep_answers(first.config, run, own, first.rules, engines)
    return results


def _profiles_from_files(variant: Variant, sample: Sample, run: RunFolder) -> VariantResult:
    """Profiles of the sample from files, which cost nothing."""
    tables = {kind: finished_profiles(variant.config, run, kind, sample.keys(kind)) for kind in KINDS}
    nothing = dict.fromkeys(KINDS, 0)
    return VariantResult(
        overrides=variant.overrides,
        settings=variant.config.profile,
        texts=_texts(tables),
        flaws=_flaws(tables),
        num_asked=0,
        paid_tokens=(0, 0),
        num_prompt_tokens=nothing,
        num_output_tokens=nothing,
        seconds=None,
        tokens_per_s=None,
        num_all=nothing,
    )


def _ask(variant: Variant, sample: Sample, run: RunFolder, texts: TrainingTexts, own: StageFolder) -> VariantResult:
    """Ask what has no answer yet, and join the sample with its answers."""
    settings, rules = variant.config.profile, variant.rules
    store = TrialStore(run.stage(STAGE.name), own, rules)
    model, tokenizer = model_and_tokenizer(settings)
    shards = shards_of({kind: sample.keys(kind) for kind in KINDS}, settings.max_prompt_tokens)
    with tempfile.TemporaryDirectory(prefix="sracl-prompts-") as place:
        prompts = RunFolder(place).stage(STAGE.name)
        build_prompts(Tasks(num_workers=0), prompts, shards, variant.config, run, tokenizer)
        plan = make_plan(settings, prompts, shards, store.new, store.best())
        num_asked, attempts_before = len(plan.to_ask), plan.ledger.num_attempts.copy()
        say(f"profile: {variant.name}: {plan.estimate.num_distinct:,} prompts, {num_asked:,} to ask")
        started = time.monotonic()
        if num_asked:
            with started_engine(variant.config, model) as ask:
                answer_all(plan.to_ask, plan.ledger, ask, store.new, settings, rules)
        seconds = time.monotonic() - started
        tables: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
        for shard, join in zip(shards, joins(shards, plan.hashes, store.best()), strict=True):
            rows = prompts.read_table(join.prompts.name, list(ROWS))
            tables[shard.kind].append(join_answers(rows, answers_of(store, join), settings.model, rules))
    of_kind = {kind: pa.concat_tables(parts) for kind, parts in tables.items()}
    paid = store.tokens(plan, attempts_before).sum(axis=0)
    tokens = _tokens_of_keys(plan, shards, store.tokens(plan, np.zeros_like(attempts_before)))
    rate = store.rate(rate_name(settings))
    return VariantResult(
        overrides=variant.overrides,
        settings=settings,
        texts=_texts(of_kind),
        flaws=_flaws(of_kind),
        num_asked=num_asked,
        paid_tokens=(int(paid[0]), int(paid[1])),
        num_prompt_tokens={kind: own[0] for kind, own in tokens.items()},
        num_output_tokens={kind: own[1] for kind, own in tokens.items()},
        seconds=seconds if num_asked else None,
        tokens_per_s=rate.output_tokens_per_s * num_replicas(settings) if rate else None,
        num_all={kind: len(keys) for kind, keys in chosen_keys(settings, texts).items()},
    )


def _tokens_of_keys(plan: Plan, shards: Sequence[PromptShard], tokens: NDArray[np.int64]) -> dict[str, tuple[int, int]]:
    """By kind the tokens of prompts and answers of all keys, each key with those of its own prompt."""
    rows = plan.ledger.find(plan.hashes)
    found: dict[str, tuple[int, int]] = {}
    start = 0
    for kind in KINDS:
        end = start + sum(shard.num_prompts for shard in shards if shard.kind == kind)
        prompt, output = tokens[rows[start:end]].sum(axis=0).tolist()
        found[kind] = prompt, output
        start = end
    return found


def _texts(tables: dict[str, pa.Table]) -> dict[str, list[str | None]]:
    return {kind: table[TEXT].to_pylist() for kind, table in tables.items()}


def _flaws(tables: dict[str, pa.Table]) -> Counter[str]:
    """How many answers have each flaw, and how many keys have no usable one."""
    flaws = Counter(flaw for table in tables.values() for own in table[FLAWS].to_pylist() for flaw in own or ())
    flaws["failed"] = sum(table.num_rows - table[ERROR].null_count for table in tables.values())
    return flaws
