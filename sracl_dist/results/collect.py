"""What finished runs yielded: metrics of every seed, their mean and deviation, and paired tests against one of them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sracl_dist.errors import SraclError, StorageError
from sracl_dist.evaluate.metrics import METRICS
from sracl_dist.evaluate.paired import PROTOCOLS, PairedTest, UserMetrics, compare, user_metrics
from sracl_dist.results.plan import SeedRun, Variant
from sracl_dist.run_folder import in_words

TESTED = ("ndcg@20", "hr@20")
SLICE_METRICS = ("hr@20", "ndcg@20")
METRICS_FILE = "metrics.json"
RANKS = "ranks"
# Spelt here again, and held equal by a test, because the module that writes these files imports torch and Ray.

Slices = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class SeedOutcome:
    """What one seed yielded."""

    seed: int
    folder: str
    metrics: dict[str, dict[str, float]]
    """Test metrics by protocol and name."""
    slices: Slices
    """For each way of grouping a list of groups with name, num_users and metrics by protocol."""
    best_epoch: int
    num_epochs: int
    training_s: float
    """Time of all epochs together, without starting and ending, over all goes of a run that was interrupted."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean over seeds, and the sample standard deviation where there are two or more."""

    mean: float
    deviation: float | None


@dataclass(kw_only=True)
class VariantResult:
    """What one configuration yielded."""

    name: str
    file: str
    outcomes: list[SeedOutcome] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    """Why a seed has no outcome."""
    metrics: dict[str, dict[str, Spread]] = field(default_factory=dict)
    """By protocol and name; empty without an outcome, as all below."""
    slices: Slices = field(default_factory=dict)
    """Means over seeds."""
    best_epoch: Spread | None = None
    num_epochs: Spread | None = None
    training_s: Spread | None = None
    tests: dict[str, dict[str, PairedTest]] = field(default_factory=dict)
    """By protocol and metric: this configuration minus the one it is tested against."""
    untested: str | None = None
    """Why there is no test although there should be one."""


@dataclass(kw_only=True)
class Results:
    """Everything that the table tells."""

    seeds: list[int]
    against: str | None
    """Name of the configuration that the others are tested against."""
    variants: list[VariantResult]


def collect(runs: Sequence[SeedRun], failed: Mapping[str, str], against: str | None = None) -> Results:
    """Read the results of all runs whose label is not among the failed ones.

    Args:
        runs: as planned.
        failed: reason by label.
        against: name of the configuration to test the others against.
    """
    seeds = list(dict.fromkeys(run.seed for run in runs))
    by_name: dict[str, list[SeedRun]] = {}
    for run in runs:
        by_name.setdefault(run.variant.name, []).append(run)
    variants = [_collect_variant(own[0].variant, own, failed) for own in by_name.values()]
    if against is not None:
        _add_tests(variants, by_name, against)
    return Results(seeds=seeds, against=against, variants=variants)


def read_outcome(run: SeedRun) -> SeedOutcome:
    """Read what a finished run yielded.

    Raises:
        StorageError: it is not finished, or a file is damaged.
    """
    folder = run.folder
    train, evaluation = (folder.stage(name).manifest() for name in ("train", "evaluate"))
    if train is None or evaluation is None:
        raise StorageError(f"The run in {folder.shown} is not finished; run the same command again.")
    if damage := folder.stage("evaluate").damage(evaluation, thorough=True):
        raise StorageError(
            f"The results in {folder.shown} are damaged ({in_words(damage)}); run the same command again, which "
            f"repairs them."
        )
    report = folder.stage("evaluate").read_json(METRICS_FILE)
    try:
        return SeedOutcome(
            seed=run.seed,
            folder=folder.shown,
            metrics={protocol: {name: float(report[protocol][name]) for name in METRICS} for protocol in PROTOCOLS},
            slices=report["slices"],
            best_epoch=int(train.details["best_epoch"]),
            num_epochs=int(train.rows["epochs"]),
            training_s=float(train.details["seconds_per_epoch"]) * int(train.rows["epochs"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"The results in {folder.shown} are not those of this program ({type(error).__name__}: {error}); delete "
            f"the folder and run the same command again."
        ) from None


def mean_slices(outcomes: Sequence[SeedOutcome]) -> Slices:
    """Means over seeds, group by group; the groups are those of the first seed, as the users are the same."""
    return {
        grouping: [
            {
                "name": group["name"],
                "num_users": group["num_users"],
                **{
                    protocol: {
                        metric: statistics.fmean(
                            outcome.slices[grouping][place][protocol][metric] for outcome in outcomes
                        )
                        for metric in METRICS
                    }
                    for protocol in PROTOCOLS
                },
            }
            for place, group in enumerate(groups)
        ]
        for grouping, groups in outcomes[0].slices.items()
    }


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of one value or more."""
    return Spread(mean=statistics.fmean(values), deviation=statistics.stdev(values) if len(values) > 1 else None)


def _collect_variant(variant: Variant, runs: Sequence[SeedRun], failed: Mapping[str, str]) -> VariantResult:
    result = VariantResult(name=variant.name, file=variant.file)
    for run in runs:
        if run.label in failed:
            result.failures[run.seed] = failed[run.label]
            continue
        try:
            result.outcomes.append(read_outcome(run))
        except StorageError as error:
            result.failures[run.seed] = str(error).rstrip(".")
    outcomes = result.outcomes
    if outcomes:
        result.metrics = {
            protocol: {name: spread([outcome.metrics[protocol][name] for outcome in outcomes]) for name in METRICS}
            for protocol in PROTOCOLS
        }
        result.slices = mean_slices(outcomes)
        result.best_epoch = spread([outcome.best_epoch for outcome in outcomes])
        result.num_epochs = spread([outcome.num_epochs for outcome in outcomes])
        result.training_s = spread([outcome.training_s for outcome in outcomes])
    return result


def _add_tests(variants: Sequence[VariantResult], runs: Mapping[str, Sequence[SeedRun]], against: str) -> None:
    baseline: UserMetrics | str
    try:
        baseline = _read_users(next(variant for variant in variants if variant.name == against), runs[against])
    except SraclError as error:
        baseline = str(error)
    for variant in variants:
        if variant.name == against:
            continue
        try:
            if isinstance(baseline, str):
                raise StorageError(baseline)
            own = _read_users(variant, runs[variant.name])
            tests = {
                protocol: {name: compare(own, baseline, protocol, name) for name in TESTED} for protocol in PROTOCOLS
            }
            variant.tests = tests
        except SraclError as error:
            variant.untested = str(error).rstrip(".")


def _read_users(variant: VariantResult, runs: Sequence[SeedRun]) -> UserMetrics:
    """Metrics by user, averaged over the seeds that have an outcome."""
    seeds = {outcome.seed for outcome in variant.outcomes}
    finished = [run for run in runs if run.seed in seeds]
    tables = [run.folder.stage("evaluate").read_shards(f"{RANKS}/") for run in finished]
    manifest = finished[0].folder.stage("prepare").manifest() if finished else None
    return user_metrics(variant.name, tables, manifest.rows["items"] if manifest else 0)
