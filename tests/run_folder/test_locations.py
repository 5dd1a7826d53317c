"""Run folders in an object store: a real S3 server on loopback, errors that pass and errors that do not."""

import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from object_store import BUCKET, CREDENTIALS, RefusingProxy, location, s3_server
from pyarrow import fs

from sracl_dist.errors import StorageError
from sracl_dist.run_folder import Manifest, RunFolder, StageFolder
from sracl_dist.run_folder.locations import SCHEMES, location_below, open_location, shown_location

TABLE = pa.table({"key": [1, 2, 3]})


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    with s3_server() as port:
        yield port


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def folder(server: int, request: pytest.FixtureRequest) -> StageFolder:
    return RunFolder(location(server, f"runs/{request.node.name}")).stage("train")


def manifest() -> Manifest:
    return Manifest(stage="train", fingerprint="f1", version=1, config={}, external={}, inputs={}, rows={"a": 1})


def test_files_tables_and_listings_are_as_on_a_disk(folder: StageFolder) -> None:
    assert folder.files() == folder.files("absent") == []
    assert not folder.exists("a/items.parquet")
    folder.write_table("a/items.parquet", TABLE)
    folder.write_json("quality.json", {"recall": 0.5})
    folder.write_bytes("empty", b"")
    assert folder.files() == ["a/items.parquet", "empty", "quality.json"]
    assert folder.files("a/") == ["a/items.parquet"]
    assert folder.exists("a/items.parquet")
    assert not folder.exists("a")
    assert folder.read_table("a/items.parquet").equals(TABLE)
    assert folder.read_shards("a/").equals(TABLE)
    assert folder.read_json("quality.json") == {"recall": 0.5}
    assert folder.read_bytes("empty") == b""
    folder.write_json("quality.json", 2)
    assert folder.read_json("quality.json") == 2
    folder.delete(["absent", "quality.json", "quality.json", "empty", "a/items.parquet"])
    assert folder.files() == []
    with pytest.raises(StorageError, match=rf"^s3://{BUCKET}/runs/.+/train/absent cannot be read; it does not exist"):
        folder.read_bytes("absent")


def test_a_file_of_many_parts_comes_back(folder: StageFolder) -> None:
    content = bytes(range(256)) * (100 << 10)  # 25 MiB: more than one part of an upload, and not a multiple of one
    folder.write_bytes("weights.bin", content + b"end")
    assert folder.read_bytes("weights.bin") == content + b"end"


def test_work_and_commit_are_as_on_a_disk(server: int, request: pytest.FixtureRequest) -> None:
    run = RunFolder(location(server, f"runs/{request.node.name}"))
    with run.working_on("train", "f1") as folder:
        folder.write_table("ranks/0.parquet", TABLE)
    with run.working_on("train", "f1") as folder:
        assert folder.files() == ["ranks/0.parquet"]
        folder.commit(manifest())
    found = folder.manifest()
    assert found is not None
    assert replace(found, sums="", tables="") == manifest()
    assert folder.damage(found, thorough=True) == {}
    with run.working_on("train", "f2") as folder:
        assert folder.files() == []
        assert folder.manifest() is None


def write_half(folder: StageFolder, name: str) -> None:
    with folder.open_output(name) as stream:
        stream.write(b"half")
        stream.flush()
        raise KeyboardInterrupt


def test_an_error_while_writing_leaves_the_old_file_or_none(folder: StageFolder) -> None:
    folder.write_bytes("old.bin", b"old")
    for name in ("old.bin", "new.bin"):
        with pytest.raises(KeyboardInterrupt):
            write_half(folder, name)
    assert folder.files() == ["old.bin"]
    assert folder.read_bytes("old.bin") == b"old"


KILLED = """
import os, signal, sys
from sracl_dist.run_folder import RunFolder
with RunFolder(sys.argv[1]).stage("train").open_output("a.bin") as stream:
    stream.write(b"x" * (20 << 20))
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_nothing(folder: StageFolder, server: int, request: pytest.FixtureRequest) -> None:
    own = location(server, f"runs/{request.node.name}")
    assert subprocess.run([sys.executable, "-c", KILLED, own], check=False).returncode == -9
    assert folder.files() == []


def test_errors_that_pass_are_tried_again_also_in_a_copy_sent_elsewhere(server: int) -> None:
    with RefusingProxy(server, every=3).running() as proxy:
        run = RunFolder(location(proxy.port, "refused"))
        for number, copy in enumerate((run, pickle.loads(pickle.dumps(run)))):
            with copy.working_on("train", f"f{number}") as folder:
                for shard in range(5):
                    folder.write_table(f"ranks/{shard}.parquet", TABLE)
                folder.delete(["ranks/4.parquet"])
                assert len(folder.read_shards("ranks/")) == 12
        assert proxy.num_refused >= 30


def test_a_copy_sent_elsewhere_is_as_patient(server: int) -> None:
    """Pyarrow's own file system gives up after three errors, and so would its copy."""
    RunFolder(location(server, "patient")).stage("train").write_bytes("a", b"1")
    with RefusingProxy(server, every=8, burst=5).running() as proxy:
        run = RunFolder(location(proxy.port, "patient"))
        for filesystem in (run.stage("train").filesystem, pickle.loads(pickle.dumps(run.stage("train").filesystem))):
            sizes = [filesystem.get_file_info(f"{BUCKET}/patient/train/a").size for _ in range(6)]
            assert sizes == [1] * 6
        assert proxy.num_refused >= 10


def test_errors_that_stay_are_one_sentence(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sracl_dist.run_folder.locations.S3_MAX_ATTEMPTS", 2)
    with RefusingProxy(server, every=1).running() as proxy:
        folder = RunFolder(location(proxy.port, "refused")).stage("train")
        with pytest.raises(StorageError, match=r"^s3://\S+/train/a\.json cannot be \w+; .+: check run\.dir"):
            folder.write_json("a.json", 1)
        assert proxy.num_refused >= 2
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        folder = RunFolder(location(unused.getsockname()[1], "x")).stage("train")
        with pytest.raises(StorageError, match=r"the server does not answer: check the network, and the endpoint"):
            folder.read_json("a.json")


def test_a_missing_bucket_is_named(server: int) -> None:
    run = RunFolder(location(server, "x").replace(BUCKET, "other-bucket"), location(server, "tables"))
    assert run.stage("train").manifest() is None
    with pytest.raises(StorageError, match=r"^s3://other-bucket/\S+ cannot be written; the bucket does not"):
        run.stage("train").write_json("a.json", 1)


def test_credentials_stay_in_the_environment(server: int) -> None:
    run = RunFolder(location(server, "runs/secret"))
    secrets = [CREDENTIALS[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    for sent in (run, run.stage("train").filesystem):
        assert not [secret for secret in secrets if secret in pickle.dumps(sent)]
    with pytest.raises(StorageError) as caught:
        RunFolder("s3://ID:SE/CR@ET@bucket/run")
    assert str(caught.value) == (
        "The run folder s3://***@bucket/run cannot be opened (credentials belong into AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, not into a URI); change run.dir."
    )


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket/run?acces_key=SECRET", "has no option acces_key, only endpoint_override, region, scheme"),
        ("s3:///run", "it names no bucket"),
    ],
)
def test_a_uri_that_cannot_be_used_is_one_sentence(uri: str, reason: str) -> None:
    with pytest.raises(StorageError, match=rf"cannot be opened \(.*{reason}\); change run\.tables\.$"):
        open_location(uri, "run.tables")


@pytest.mark.parametrize("key", ["run.dir", "run.tables"])
@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("mock://bucket/run", "mock:"),
        ("mock:run", "mock:"),
        ("MOCK://run", "MOCK:"),
        ("fsspec+memory://run", "fsspec+memory:"),
        ("hdfs://host/run", "hdfs:"),
        ("hf://datasets/a/run", "hf:"),
        ("S3://bucket/run", "S3:"),
        ("s3:bucket/run", "s3:"),
        ("s3:KEY:SECRET@bucket", "s3:"),
        ("file:/tmp/run", "file:"),
        ("https://server/run", "https:"),
    ],
)
def test_a_scheme_that_cannot_hold_a_run_is_refused(uri: str, scheme: str, key: str) -> None:
    with pytest.raises(StorageError) as caught:
        RunFolder(**{"location": uri} if key == "run.dir" else {"location": "run", "tables": uri})
    message = str(caught.value)
    assert message.startswith(f"{key} begins with {scheme} and ")
    assert all(f"{name}://" in message for name in SCHEMES)
    assert "SECRET" not in message


def test_known_schemes_and_folders_with_colons_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("./mock:run", str(tmp_path / "mock:run"), f"file://{tmp_path}/run", "mock"):
        filesystem, root = open_location(folder, "run.dir")
        assert filesystem.type_name == "local"
        assert Path(root).is_relative_to(tmp_path)
    account = "account.dfs.core.windows.net"
    for uri, root in (
        ("gs://bucket/run", "bucket/run"),
        ("gcs://bucket/run", "bucket/run"),
        (f"abfs://container@{account}/run", "container/run"),
        (f"abfss://container@{account}/run", "container/run"),
    ):
        assert open_location(uri, "run.dir")[1] == root


def test_the_endpoint_may_come_from_the_environment_and_is_sent_along(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server}")
    filesystem, root = open_location(f"s3://{BUCKET}/with%20space/run/", "run.dir")
    assert root == f"{BUCKET}/with space/run"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    for copy in (filesystem, pickle.loads(pickle.dumps(filesystem))):
        assert copy.get_file_info(BUCKET).type == fs.FileType.Directory


def test_a_folder_below_keeps_the_query_at_the_end(tmp_path: Path) -> None:
    assert location_below("s3://b/runs/?region=x&scheme=http", "seed-1") == "s3://b/runs/seed-1?region=x&scheme=http"
    assert location_below("runs/what?/", "seed-1") == "runs/what?/seed-1"
    assert location_below("gs://b/runs", "seed-1") == "gs://b/runs/seed-1"


def test_secrets_in_a_location_are_not_shown() -> None:
    assert shown_location("gs://KEY:SE@CRET@bucket/tables") == "gs://***@bucket/tables"
    shown = shown_location("s3://bucket/tables?access_key=KEY&secret_key=SE=CRET&region=eu-west-1")
    assert shown == "s3://bucket/tables?access_key=***&secret_key=***&region=eu-west-1"
    assert shown_location("data/events-?.csv?a=b") == "data/events-?.csv?a=b"


def test_a_secret_in_the_query_is_refused_and_not_shown() -> None:
    with pytest.raises(StorageError, match="no option secret_key") as caught:
        open_location("s3://bucket/tables?secret_key=SECRET", "run.dir")
    assert "SECRET" not in str(caught.value)
