"""The whole pipeline as a user runs it: every stage for real, killed in the middle, run again, skipped when done."""

import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from small_run import NUM_ITEMS, NUM_USERS, small_values, write_log

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import KEY, PROMPT_HASH, TEXT
from sracl_dist.stages import STAGES

pytestmark = [pytest.mark.ray, pytest.mark.llm]
JOBS = Path(__file__).parent.parent / "jobs"
TIMEOUT_S = 300


class Pipelines:
    """Starts pipelines and sees to it that nothing they started outlives the test."""

    def __init__(self) -> None:
        self.mark = f"SRACL_TEST_MARK={uuid.uuid4().hex}"

    def start(self, config: Path, *overrides: str) -> subprocess.Popen[str]:
        name, value = self.mark.split("=")
        return subprocess.Popen(
            [sys.executable, str(JOBS / "pipeline.py"), "--config", str(config), *overrides],
            env={**os.environ, name: value},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, config: Path, *overrides: str) -> str:
        process = self.start(config, *overrides)
        _, told = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, told
        return told

    def kill_when(self, config: Path, reached: Callable[[], bool]) -> None:
        """SIGKILL the pipeline process alone, as an out-of-memory killer would, once `reached`."""
        process = self.start(config)
        deadline = time.monotonic() + TIMEOUT_S
        while not reached():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.communicate()
        self.wait_until_gone()

    def survivors(self) -> list[int]:
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def wait_until_gone(self) -> None:
        deadline = time.monotonic() + 60
        while names := [name for pid in self.survivors() if (name := command_line(pid)) and not is_helper(name)]:
            assert time.monotonic() < deadline, f"still running: {names}"
            time.sleep(0.2)

    def stop(self) -> None:
        for pid in self.survivors():
            os.kill(pid, signal.SIGKILL)


def is_helper(name: str) -> bool:
    """Ray's own helpers, and workers that were still starting, notice the end of their node late and idle till then."""
    return any(helper in name for helper in ("default_worker.py", "ray::DashboardAgent", "ray::RuntimeEnvAgent"))


@pytest.fixture(scope="module")
def pipelines() -> Iterator[Pipelines]:
    pipelines = Pipelines()
    yield pipelines
    pipelines.stop()


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def make_project(folder: Path) -> tuple[Path, RunFolder]:
    write_log(folder)
    values = small_values(folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    return folder / "config.yaml", RunFolder(values["run"]["dir"])


def middle_of(run: RunFolder, stage: str) -> bool:
    """Whether the stage has committed a part of its work."""
    folder = run.stage(stage)
    parts = {"embed": "items/", "neighbours": "blocks/", "evaluate": "ranks/", "recommend": "recommendations/"}
    if stage == "profile":
        return len(folder.files("generated/")) >= 2
    if stage == "train":
        return folder.exists("metrics.jsonl")
    return bool(folder.files(parts[stage])) if stage in parts else folder.exists("started.json")


def kill_in(stages: Sequence[str], config: Path, run: RunFolder, pipelines: Pipelines) -> set[str]:
    """Kill the pipeline in the middle of each stage in turn, then let it finish; returns the prompts answered early."""
    answered: set[str] = set()
    for stage in stages:
        pipelines.kill_when(config, lambda stage=stage: middle_of(run, stage))
        assert run.stage(stage).manifest() is None, f"{stage} was to be killed before it was done"
        if stage == "profile":
            answered = set(run.stage("profile").read_shards("generated/")[PROMPT_HASH].to_pylist())
    pipelines.run(config)
    return answered


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, pipelines: Pipelines) -> tuple[Path, RunFolder, set[str]]:
    """A run that was killed while profiles were written, again while it trained, and then finished."""
    config, run = make_project(tmp_path_factory.mktemp("killed"))
    return config, run, kill_in(("profile", "train"), config, run, pipelines)


@pytest.mark.slow
@pytest.mark.fault
def test_profiles_written_before_the_kill_are_not_generated_again(killed: tuple[Path, RunFolder, set[str]]) -> None:
    _, run, answered = killed
    manifest = run.stage("profile").manifest()
    assert manifest is not None
    tables = [run.stage("profile").read_table(f"{kind}.parquet") for kind in ("items", "users")]
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
    killed: tuple[Path, RunFolder, set[str]], pipelines: Pipelines, tmp_path: Path
) -> None:
    config, run, _ = killed
    compare_with_undisturbed(config, run, ("train", "evaluate", "recommend", "report"), pipelines, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_stage_that_was_killed_equals_an_undisturbed_one(pipelines: Pipelines, tmp_path: Path) -> None:
    config, run = make_project(tmp_path / "killed")
    kill_in(list(STAGES), config, run, pipelines)
    compare_with_undisturbed(config, run, [name for name in STAGES if name != "profile"][1:], pipelines, tmp_path)


def compare_with_undisturbed(
    config: Path, run: RunFolder, stages: Sequence[str], pipelines: Pipelines, folder: Path
) -> None:
    """Do the stages again without a kill, from the same profiles, which no two runs of an engine give alike."""
    shutil.copytree(run.location, folder / "undisturbed")
    for stage in stages:
        shutil.rmtree(folder / "undisturbed" / stage)
    told = pipelines.run(config, f"run.dir={folder / 'undisturbed'}")
    assert "[2/8] profile: done before" in told
    undisturbed = RunFolder(str(folder / "undisturbed"))
    for stage, name in (("train", "best/model.safetensors"), ("evaluate", "metrics.json")):
        assert run.stage(stage).read_bytes(name) == undisturbed.stage(stage).read_bytes(name), name
    for stage, prefix in (
        ("embed", "items/"),
        ("embed", "users/"),
        ("neighbours", "lists/"),
        ("evaluate", "ranks/"),
        ("recommend", "recommendations/"),
    ):
        assert run.stage(stage).read_shards(prefix).equals(undisturbed.stage(stage).read_shards(prefix)), prefix
    for name in ("items.parquet", "users.parquet"):
        own_table, other_table = (one.stage("neighbours").read_table(name) for one in (run, undisturbed))
        assert own_table.equals(other_table), name
    for stage in STAGES:
        own, other = run.stage(stage).manifest(), undisturbed.stage(stage).manifest()
        assert own is not None
        assert other is not None
        assert (own.rows, own.fingerprint) == (other.rows, other.fingerprint), stage


@pytest.mark.slow
@pytest.mark.fault
def test_everything_is_skipped_when_it_is_done(killed: tuple[Path, RunFolder, set[str]], pipelines: Pipelines) -> None:
    config, run, _ = killed
    before = {path: path.stat().st_mtime_ns for path in Path(run.location).rglob("*") if path.is_file()}
    told = pipelines.run(config)
    assert told.count(": done before") == len(STAGES)
    assert "every stage was done before" in told
    assert told.rstrip().endswith("run/report/report.html")
    after = {path: path.stat().st_mtime_ns for path in Path(run.location).rglob("*") if path.is_file()}
    assert after == before


def test_a_failing_stage_stops_the_pipeline_with_its_sentence(tmp_path: Path, pipelines: Pipelines) -> None:
    config, _ = make_project(tmp_path)
    (tmp_path / "log.csv").unlink()
    process = pipelines.start(config)
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
    killed: tuple[Path, RunFolder, set[str]], pipelines: Pipelines, tmp_path: Path
) -> None:
    config, run, _ = killed
    shutil.copytree(run.location, tmp_path / "run")
    told = pipelines.run(config, f"run.dir={tmp_path / 'run'}", "train.epochs=1")
    done = [name for name in STAGES if f"] {name}: done before" in told]
    assert done == ["prepare", "profile", "embed", "neighbours"]
    assert "train.epochs was 4 and is 1" in told
