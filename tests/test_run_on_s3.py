"""The whole pipeline with its run folder on an S3 server, which also refuses every tenth request."""

import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chat_server import MODEL, ChatServer, Response, good
from object_store import CREDENTIALS, RefusingProxy, location, s3_server
from small_run import NUM_ITEMS, NUM_USERS, small_values, write_log

from sracl_dist.run_folder import RunFolder
from sracl_dist.stages import STAGES

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1200)]
JOBS = Path(__file__).parent.parent / "jobs"


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


def describe(message: str, attempt: int) -> Response:
    """Another profile for every prompt, always the same."""
    return good(f"Likes stories of kind {zlib.crc32(message.encode())}.")


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Settings for a small log, with profiles from a server."""
    write_log(tmp_path)
    with ChatServer(describe).running() as chat:
        profile = {"engine": "endpoint", "model": MODEL, "endpoint": {"url": chat.url}, "commit_interval_s": 0.1}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(small_values(tmp_path) | {"profile": profile}))
        yield tmp_path / "config.yaml"


def run_pipeline(config: Path, *overrides: str) -> str:
    """Take the log through all stages; returns what the person saw."""
    job = subprocess.run(
        [sys.executable, str(JOBS / "pipeline.py"), "--config", str(config), *overrides],
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert job.returncode == 0, job.stderr
    return job.stderr


def require_whole(run: RunFolder) -> None:
    """Every table is complete, and no secret is in any file."""
    for stage in ("prepare", "neighbours"):
        assert run.stage(stage).read_table("items.parquet").num_rows == NUM_ITEMS, stage
    assert run.stage("neighbours").read_table("users.parquet").num_rows == NUM_USERS
    assert run.stage("profile").read_shards("items/").num_rows == NUM_ITEMS
    for stage in ("prepare", "profile", "embed"):
        assert run.stage(stage).read_shards("users/").num_rows == NUM_USERS, stage
    assert sorted(run.stage("evaluate").read_shards("ranks/")["user"].to_pylist()) == list(range(NUM_USERS))
    assert run.stage("recommend").read_shards("recommendations/").num_rows == NUM_USERS
    assert len(run.stage("train").read_bytes("metrics.jsonl").splitlines()) == 4
    secret = CREDENTIALS["AWS_SECRET_ACCESS_KEY"].encode()
    for name in STAGES:
        folder = run.stage(name)
        assert folder.manifest() is not None, name
        assert not [file for file in folder.files() if secret in folder.read_bytes(file)]


def test_a_run_on_s3_equals_one_on_the_disk(server: int, config: Path, tmp_path: Path) -> None:
    place = location(server, "plain/run")
    told = run_pipeline(config, f"run.dir={place}")
    assert told.rstrip().endswith("/plain/run/report/report.html")
    assert "s3://" in told.splitlines()[-1]
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in told
    run, local = RunFolder(place), RunFolder(str(tmp_path / "local"))
    require_whole(run)
    assert run_pipeline(config, f"run.dir={place}").count(": done before") == len(STAGES)
    run_pipeline(config, f"run.dir={local.location}")
    for stage, name in (("train", "best/model.safetensors"), ("evaluate", "metrics.json")):
        assert run.stage(stage).read_bytes(name) == local.stage(stage).read_bytes(name), name
    for stage in STAGES:
        own, other = (
            {name for name in one.stage(stage).files() if not name.startswith(("checkpoints/", "generated/"))}
            for one in (run, local)
        )
        assert own == other, stage


def test_a_run_and_its_tables_on_a_server_that_refuses_every_tenth_request(server: int, config: Path) -> None:
    with RefusingProxy(server, every=10).running() as proxy:
        place, tables = location(proxy.port, "refusing/run"), location(proxy.port, "refusing/tables")
        run_pipeline(config, f"run.dir={place}", f"run.tables={tables}")
        num_refused = proxy.num_refused
        require_whole(RunFolder(place, tables))
    assert num_refused >= 20
