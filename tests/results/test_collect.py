"""Means, deviations and tests by hand; damaged results; names of files and keys that other stages write."""

import inspect
import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from fake_stages import NUM_ITEMS, finish, write_config, write_evaluation, write_jobs

from sracl_dist.evaluate.paired import PROTOCOLS, compare, user_metrics
from sracl_dist.results import collect as module
from sracl_dist.results.collect import Spread, collect, spread
from sracl_dist.results.plan import SeedRun, plan_runs
from sracl_dist.results.replicate import replicate
from sracl_dist.run_folder import RunFolder

TABLES = ("prepare", "profile", "embed", "neighbours")


def ranks(kept: Sequence[int], *, first_target: int = 1) -> pa.Table:
    num = len(kept)
    columns = {
        "user": pa.array(range(num), pa.int64()),
        "target": pa.array(range(first_target, first_target + num), pa.int32()),
        "rank_seen_kept": pa.array(kept, pa.int32()),
        "rank_seen_removed": pa.array([1] * num, pa.int32()),
    }
    return pa.table(columns)


RANKS = {
    "one, seed 0": ranks([1, 1, 30, 30]),
    "one, seed 1": ranks([1, 30, 30, 30]),
    "two, seed 0": ranks([1, 1, 1, 1]),
    "two, seed 1": ranks([1, 1, 3, 3]),
}


@pytest.fixture
def runs(tmp_path: Path) -> list[SeedRun]:
    files = [write_config(tmp_path / f"{name}.yaml", epochs=epochs) for name, epochs in (("one", 4), ("two", 2))]
    runs = plan_runs(files, [0, 1])
    for run in runs:
        if run.seed == 0:
            finish(run, TABLES)
        finish(run, ("train", "evaluate"))
        write_again(run, partial(write_evaluation, table=RANKS[run.label]))
    return runs


def write_again(run: SeedRun, write: Callable[[RunFolder], object]) -> None:
    """Let the stage evaluate have written something else."""
    folder = run.folder
    manifest = folder.stage("evaluate").manifest()
    assert manifest is not None
    with folder.working_on("evaluate", manifest.fingerprint) as work:
        write(folder)
        work.commit(manifest)


def test_mean_and_sample_deviation() -> None:
    assert spread([1.0, 2.0, 6.0]) == Spread(mean=3.0, deviation=pytest.approx(7**0.5))
    assert spread([0.25]) == Spread(mean=0.25, deviation=None)


def test_numbers_by_hand(runs: list[SeedRun]) -> None:
    results = collect(runs, {}, "one")
    assert (results.seeds, results.against) == ([0, 1], "one")
    one, two = results.variants
    assert [outcome.metrics["seen_kept"]["hr@20"] for outcome in one.outcomes] == [0.5, 0.25]
    assert one.metrics["seen_kept"]["hr@20"] == Spread(mean=0.375, deviation=pytest.approx(0.125 * 2**0.5))
    assert two.metrics["seen_kept"]["ndcg@20"] == Spread(mean=0.875, deviation=pytest.approx(0.125 * 2**0.5))
    assert two.metrics["seen_removed"]["mrr"] == Spread(mean=1.0, deviation=0.0)
    assert one.best_epoch == Spread(mean=1.5, deviation=pytest.approx(0.5**0.5))  # seed + 1
    assert one.num_epochs == Spread(mean=4, deviation=0)
    assert one.training_s == Spread(mean=6.0, deviation=0.0)  # 4 epochs of 1.5 s
    even, odd = one.slices["num_training_items"]
    assert (even["name"], even["num_users"], odd["name"]) == ("even", 2, "odd")
    assert even["seen_kept"]["hr@20"] == 0.5  # user 0 always, user 2 never
    assert odd["seen_kept"]["hr@20"] == 0.25  # user 1 with one of two seeds, user 3 never

    assert one.tests == {}
    by_hand = two.tests["seen_kept"]["hr@20"]
    assert by_hand.difference == 0.625  # (0 + 0.5 + 1 + 1) / 4
    users = [user_metrics(n, [RANKS[f"{n}, seed {s}"] for s in (0, 1)], NUM_ITEMS) for n in ("two", "one")]
    for protocol in PROTOCOLS:
        for metric in ("hr@20", "ndcg@20"):
            assert two.tests[protocol][metric] == compare(*users, protocol, metric)


def test_failed_and_damaged_runs_leave_the_other_seeds(runs: list[SeedRun]) -> None:
    write_again(runs[3], lambda folder: folder.stage("evaluate").write_json("metrics.json", {"seen_kept": {}}))
    results = collect(runs, {"one, seed 0": "train.py ended with status 1"}, "one")
    one, two = results.variants
    assert one.failures == {0: "train.py ended with status 1"}
    assert two.failures[1].startswith(
        f"The results in {runs[3].folder.location} are not those of this program (KeyError: "
    )
    assert two.metrics["seen_kept"]["hr@20"] == Spread(mean=1.0, deviation=None)
    assert two.tests["seen_kept"]["hr@20"].difference == 0.75


def test_a_test_that_cannot_be_made_says_why(runs: list[SeedRun]) -> None:
    for run in runs[2:]:
        write_again(run, partial(write_evaluation, table=ranks([1, 1, 1, 1], first_target=2)))
    two = collect(runs, {}, "one").variants[1]
    assert two.tests == {}
    assert two.untested is not None
    assert two.untested.startswith("The ranks of two and one are of other test items for 4 users, the first user 0")
    nothing = collect(runs, {"one, seed 0": "x", "one, seed 1": "x"}, "one").variants[1]
    assert nothing.untested == "one has no ranks to average; run its stage evaluate"


def test_damaged_results_are_named_and_the_same_command_repairs_them(runs: list[SeedRun]) -> None:
    Path(runs[3].folder.stage("evaluate").path("metrics.json")).write_text("{}")
    _, two = collect(runs, {}, "one").variants
    assert re.search(r"are damaged \(metrics\.json has 2 bytes .+\); run the same command again", two.failures[1])
    jobs = write_jobs(Path(runs[0].variant.file).parent / "jobs")
    assert replicate(runs, jobs) == {}
    assert not collect(runs, {}, "one").variants[1].failures


def test_names_are_those_that_the_stages_write() -> None:
    from sracl_dist.evaluate import job
    from sracl_dist.train import launch

    assert (module.METRICS_FILE, module.RANKS) == (job.METRICS, job.RANKS)
    described = inspect.getsource(launch)
    for name in ("best_epoch", "seconds_per_epoch", "epochs"):
        assert f'"{name}":' in described


def test_every_number_is_in_the_json(runs: list[SeedRun], tmp_path: Path) -> None:
    from sracl_dist.results.job import make_results

    files = [run.variant.file for run in runs[::2]]
    make_results(files, [0, 1], tmp_path, str(tmp_path / "page.md"), against=files[0])
    values = json.loads((tmp_path / "page.json").read_text())
    assert values["against"] == "one"
    one, two = values["variants"]
    assert one["outcomes"][1]["metrics"]["seen_kept"]["hr@20"] == 0.25
    assert one["metrics"]["seen_kept"]["hr@20"]["mean"] == 0.375
    assert two["tests"]["seen_kept"]["hr@20"]["difference"] == 0.625
    assert two["slices"]["num_training_items"][1]["seen_removed"]["mrr"] == 1
