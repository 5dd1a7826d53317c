"""The whole pipeline as a user runs it: every stage for real, killed in the middle, run again, skipped when done."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from programs import Programs, programs_in_own_folder
from small_run import NUM_ITEMS, NUM_USERS, make_project
from whole_run import results

from sracl_dist.columns import KEY, PROMPT_HASH, TEXT
from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES

pytestmark = [pytest.mark.ray, pytest.mark.llm]
TIMEOUT_S = 300


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with programs_in_own_folder() as programs:
        yield programs


def run_pipeline(programs: Programs, config: Path, *overrides: str) -> str:
    """Run all that is not done; returns what it told."""
    process = programs.pipeline(config, *overrides)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, told
    return told


def kill_when(programs: Programs, config: Path, reached: Callable[[], bool]) -> None:
    """SIGKILL the pipeline process alone, as an out-of-memory killer would, once `reached`."""
    process = programs.pipeline(config)
    deadline = time.monotonic() + TIMEOUT_S
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> tuple[Path, RunFolder, set[str]]:
    """A run that was killed while profiles were written, again while it trained, and then finished.

    Also the prompts that were answered before the first kill.
    """
    config, run = make_project(tmp_path_factory.mktemp("killed"))
    profile, train = run.stage("profile"), run.stage("train")
    kill_when(programs, config, lambda: len(profile.files("generated/")) >= 2)
    answered = set(profile.read_shards("generated/")[PROMPT_HASH].to_pylist())
    kill_when(programs, config, lambda: train.exists("metrics.jsonl"))
    assert train.manifest() is None, "it was to be killed before it was done"
    run_pipeline(programs, config)
    return config, run, answered


@pytest.mark.slow
@pytest.mark.fault
def test_profiles_written_before_the_kill_are_not_generated_again(killed: tuple[Path, RunFolder, set[str]]) -> None:
    _, run, answered = killed
    manifest = run.stage("profile").manifest()
    assert manifest is not None
    tables = [run.stage("profile").read_shards(f"{kind}/") for kind in ("items", "users")]
    hashes = [text for table in tables for text in table[PROMPT_HASH].to_pylist()]
    assert 0 < len(answered) < len(set(hashes))
    assert manifest.details["num_generated"] == len(set(hashes)) - len(answered)
    assert tables[0][KEY].to_pylist() == list(range(1, NUM_ITEMS + 1))
    assert tables[1][KEY].to_pylist() == list(range(NUM_USERS))
    assert all(text for table in tables for text in table[TEXT].to_pylist())
    store = run.stage("profile").read_shards("generated/")
    assert sorted(store[PROMPT_HASH].to_pylist()) == sorted(set(hashes)), "each prompt has one answer"


@pytest.mark.slow
@pytest.mark.fault
def test_training_that_was_killed_equals_an_undisturbed_one(
    killed: tuple[Path, RunFolder, set[str]], programs: Programs, tmp_path: Path
) -> None:
    config, run, _ = killed
    shutil.copytree(run.location, tmp_path / "undisturbed")
    for stage in ("train", "evaluate", "recommend", "report"):
        shutil.rmtree(tmp_path / "undisturbed" / stage)
    run_pipeline(programs, config, f"run.dir={tmp_path / 'undisturbed'}")
    undisturbed = RunFolder(str(tmp_path / "undisturbed"))
    for stage in STAGES:
        assert results(run, stage) == results(undisturbed, stage), stage


@pytest.mark.slow
@pytest.mark.fault
def test_everything_is_skipped_when_it_is_done(killed: tuple[Path, RunFolder, set[str]], programs: Programs) -> None:
    config, run, _ = killed
    before = {path: path.stat().st_mtime_ns for path in Path(run.location).rglob("*") if path.is_file()}
    told = run_pipeline(programs, config)
    assert told.count(": done before") == len(STAGES)
    assert "every stage was done before" in told
    assert told.rstrip().endswith("run/report/report.html")
    after = {path: path.stat().st_mtime_ns for path in Path(run.location).rglob("*") if path.is_file()}
    assert after == before


def test_a_failing_stage_stops_the_pipeline_with_its_sentence(tmp_path: Path, programs: Programs) -> None:
    config, _ = make_project(tmp_path)
    (tmp_path / "log.csv").unlink()
    process = programs.pipeline(config)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "log.csv" in told
    assert "prepare.py ended with status 1" in told
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.fault
def test_tables_join_by_id_from_end_to_end(killed: tuple[Path, RunFolder, set[str]]) -> None:
    """The user's own ids come back: every recommended item is in the log, new to the user, and ranked once."""
    config, run, _ = killed
    log: dict[str, list[str]] = {}
    for line in (config.parent / "log.csv").read_text().splitlines()[1:]:
        user_id, item_id, _ = line.split(",")
        log.setdefault(user_id, []).append(item_id)
    table: pa.Table = run.stage("recommend").read_shards("recommendations/")
    lists = dict(zip(table["user_id"].to_pylist(), table["item_ids"].to_pylist(), strict=True))
    assert set(lists) == set(log)
    catalogue = {item_id for items in log.values() for item_id in items}
    for user_id, items in lists.items():
        assert len(items) == len(set(items)) == 4
        assert set(items) <= catalogue - set(log[user_id])
    ranks = run.stage("evaluate").read_shards("ranks/")
    names = pq.read_table(f"{run.location}/prepare/items.parquet")["item_id"].to_pylist()
    users = run.stage("prepare").read_shards("users/")["user_id"].to_pylist()
    targets = {users[row["user"]]: names[row["target"] - 1] for row in ranks.to_pylist()}
    assert targets == {user_id: items[-1] for user_id, items in log.items()}


@pytest.mark.slow
def test_a_changed_setting_runs_its_stage_and_the_later_ones(
    killed: tuple[Path, RunFolder, set[str]], programs: Programs, tmp_path: Path
) -> None:
    config, run, _ = killed
    shutil.copytree(run.location, tmp_path / "run")
    told = run_pipeline(programs, config, f"run.dir={tmp_path / 'run'}", "train.epochs=1")
    done = [name for name in STAGES if f"] {name}: done before" in told]
    assert done == ["prepare", "profile", "embed", "neighbours"]
    assert "train.epochs was 4 and is 1" in told
