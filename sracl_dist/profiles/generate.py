"""profile: every item's and user's profile, each distinct prompt answered once and never again.

Answers live in `generated/`, addressed by the hash of prompt, model and sampling, and survive a change of settings:
a new template or model asks only what it touches, and a killed stage resumes where it was.
"""

import tempfile
import time

from sracl_dist.config import Config
from sracl_dist.config.sections import ProfileConfig
from sracl_dist.data.public_sets import item_kind
from sracl_dist.observe import say
from sracl_dist.profiles.asking import answer_all, started_engine
from sracl_dist.profiles.counts import counts_of, written_tables
from sracl_dist.profiles.estimate import Estimate, shown_prompt
from sracl_dist.profiles.from_file import take_profiles
from sracl_dist.profiles.joining import write_tables
from sracl_dist.profiles.language_model import model_and_tokenizer
from sracl_dist.profiles.plan import chosen_keys, make_plan
from sracl_dist.profiles.prompt_shards import PROMPTS, build_prompts, shards_of
from sracl_dist.profiles.quality import AnswerRules, answer_rules
from sracl_dist.profiles.rate import rate_name
from sracl_dist.profiles.store import AnswerStore
from sracl_dist.profiles.table import KINDS
from sracl_dist.profiles.template import load_chats
from sracl_dist.profiles.texts import load_training_texts
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import StageResult
from sracl_dist.tasks import Tasks, open_tasks

LOCAL_PROMPTS = 50_000
"""So many are written and joined in this process; more of them by Ray's workers."""
ESTIMATED_PROMPTS = 100_000
"""So many are written at most for an estimate."""


def generate_profiles(config: Config, run: RunFolder) -> StageResult:
    """Write the shards below `items/` and `users/`, one row per profiled item or user.

    Raises:
        StageError: more than `profile.max_failed_share` of the prompts have no answer, or the engine stalls.
        SetupError: the model, vLLM or the endpoint cannot be used.
        InputError: finished profiles cannot be taken from the files.
    """
    folder, settings = run.stage("profile"), config.profile
    if settings.engine == "file":
        return take_profiles(config, run)
    rules = _rules(config)
    store = AnswerStore(folder, rules)
    model, tokenizer = model_and_tokenizer(settings)
    shards = shards_of(chosen_keys(settings, load_training_texts(run)), settings.max_prompt_tokens)
    on_ray = sum(shard.num_prompts for shard in shards) > LOCAL_PROMPTS
    with open_tasks(config.cluster, on_ray=on_ray) as tasks:
        build_prompts(tasks, folder, shards, config, run, tokenizer)
        plan = make_plan(settings, folder, shards, store, store.best(tasks))
    _say_estimate(plan.estimate, settings)
    started, num_retried = time.monotonic(), 0
    if len(plan.to_ask):
        with started_engine(config, model) as ask:
            num_retried = answer_all(plan.to_ask, plan.ledger, ask, store, settings, rules)
    generate_s = time.monotonic() - started
    store.compact()
    with open_tasks(config.cluster, on_ray=on_ray) as tasks:
        write_tables(tasks, folder, shards, plan.hashes, store.best(tasks), settings.model, rules)
    counts = counts_of(written_tables(folder))
    counts.refuse_failures(settings.max_failed_share)
    folder.delete_folder(PROMPTS)
    details = {
        "num_generated": len(plan.to_ask),
        "num_retried": num_retried,
        "num_given_up": plan.estimate.num_given_up,
        **counts.details,
        "estimated_shared_share": plan.estimate.shared_share,
        "output_tokens_per_s": rate.output_tokens_per_s if (rate := store.rate(rate_name(settings))) else None,
        "generate_s": round(generate_s, 1),
    }
    return StageResult(
        rows={kind: sum(shard.num_prompts for shard in shards if shard.kind == kind) for kind in KINDS},
        details=details,
        summary=[
            f"{details['num_generated']:,} answers generated, {num_retried:,} asked once more, "
            f"{details['num_failed']:,} failed{counts.why_failed()}, {details['num_truncated']:,} cut at "
            f"profile.max_output_tokens={settings.max_output_tokens}, {details['num_repetitive']:,} repetitive"
        ],
    )


def estimate_profiles(config: Config, run: RunFolder) -> None:
    """Say what the stage would ask and what it would cost, and show three prompts; nothing is asked or kept."""
    settings = config.profile
    if settings.engine == "file":
        say("profile: profiles are taken from profile.files and nobody is asked; leave out --dry-run to take them")
        return
    _, tokenizer = model_and_tokenizer(settings)
    store = AnswerStore(run.stage("profile"), _rules(config))
    keys = chosen_keys(settings, load_training_texts(run))
    num_prompts = sum(map(len, keys.values()))
    # Every so many of each kind: to write all prompts of a large log would take hours.
    step = max(1, -(-num_prompts // ESTIMATED_PROMPTS))
    shards = shards_of({kind: own[::step] for kind, own in keys.items()}, settings.max_prompt_tokens)
    with tempfile.TemporaryDirectory(prefix="sracl-prompts-") as place:
        folder = RunFolder(place).stage("profile")
        build_prompts(Tasks(num_workers=0), folder, shards, config, run, tokenizer)
        plan = make_plan(settings, folder, shards, store, store.best())
        samples = plan.samples()
    _say_estimate(plan.estimate.for_all(num_prompts), settings)
    for prompt in samples:
        say(f"profile: the prompt of {prompt.kind} {prompt.key}, {prompt.num_tokens:,} tokens:")
        for line in shown_prompt(prompt, tokenizer).split("\n"):
            say(line)
    say("profile: nothing was asked; leave out --dry-run to start")


def _say_estimate(estimate: Estimate, settings: ProfileConfig) -> None:
    for line in estimate.lines(settings):
        say(f"profile: {line}")


def _rules(config: Config) -> AnswerRules:
    return answer_rules(load_chats(config.profile, item_kind(config.data)).values())
