"""The run folder: atomic writes, begin and commit, and errors of the disk as one sentence."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sracl_dist.artifacts import MANIFEST, STARTED, TABLE_STAGES, Manifest, RunFolder, StageFolder
from sracl_dist.errors import StorageError
from sracl_dist.storage import shown_location

TABLE = pa.table({"key": [1, 2, 3]})


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    return RunFolder(str(tmp_path / "run")).stage("train")


def manifest(fingerprint: str = "f1") -> Manifest:
    return Manifest(
        stage="train",
        fingerprint=fingerprint,
        version=1,
        config={"train.epochs": 3},
        external={},
        inputs={"prepare": "p1"},
        rows={"checkpoints": 1},
    )


def names_on_disk(folder: StageFolder) -> set[str]:
    root = Path(folder.path())
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_tables_json_and_bytes_come_back(folder: StageFolder) -> None:
    folder.write_table("a/items.parquet", TABLE)
    folder.write_json("quality.json", {"recall": 0.5, "text": "\u6771\u4eac"})
    folder.write_bytes("weights.bin", b"\x00\x01")
    assert folder.read_table("a/items.parquet").equals(TABLE)
    assert folder.read_table("a/items.parquet", []).num_columns == 0
    assert folder.read_json("quality.json") == {"recall": 0.5, "text": "\u6771\u4eac"}
    assert folder.read_bytes("weights.bin") == b"\x00\x01"
    assert folder.files() == ["a/items.parquet", "quality.json", "weights.bin"]
    assert folder.files("a") == ["a/items.parquet"]
    assert folder.files("absent") == []
    assert folder.exists("quality.json")
    assert not folder.exists("a")


@pytest.mark.parametrize("wanted", [[], [0], [3], [2, 6], [0, 3, 4, 5, 9], list(range(10))])
def test_row_groups_without_a_wanted_row_are_not_read(
    folder: StageFolder, monkeypatch: pytest.MonkeyPatch, wanted: list[int]
) -> None:
    whole = pa.table({"key": np.arange(10), "square": np.arange(10) ** 2, "text": list("abcdefghij")})
    folder.write_table("rows.parquet", whole, group_rows=3)
    read: list[int] = []
    read_row_groups = pq.ParquetFile.read_row_groups

    def note(file: pq.ParquetFile, groups: list[int], columns: list[str]) -> pa.Table:
        read.extend(groups)
        return read_row_groups(file, groups, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", note)
    mask = np.isin(np.arange(10), wanted)
    found = folder.read_rows("rows.parquet", mask, ["square", "text"])
    assert found.equals(whole.select(["square", "text"]).take(pa.array(wanted, pa.int64())))
    assert read == sorted({row // 3 for row in wanted})


def test_a_file_with_other_rows_than_expected_is_refused(folder: StageFolder) -> None:
    folder.write_table("rows.parquet", TABLE, group_rows=2)
    with pytest.raises(StorageError, match=r"rows.parquet has 3 rows and should have 4; run the stage train again"):
        folder.read_rows("rows.parquet", np.ones(4, np.bool_), ["key"])


def test_a_second_write_replaces_the_first(folder: StageFolder) -> None:
    folder.write_json("quality.json", 1)
    folder.write_json("quality.json", 2)
    assert folder.read_json("quality.json") == 2
    assert names_on_disk(folder) == {"quality.json"}


def write_half(folder: StageFolder, name: str, error: BaseException) -> None:
    with folder.open_output(name) as stream:
        stream.write(b"half")
        raise error


@pytest.mark.parametrize("error", [ValueError("bad row"), KeyboardInterrupt()])
def test_an_exception_in_the_middle_of_a_write_leaves_nothing(folder: StageFolder, error: BaseException) -> None:
    with pytest.raises(type(error)):
        write_half(folder, "items.parquet", error)
    assert names_on_disk(folder) == set()


def test_an_exception_in_the_middle_of_a_write_keeps_what_was_there(folder: StageFolder) -> None:
    folder.write_bytes("weights.bin", b"old")
    with pytest.raises(ValueError, match="bad row"):
        write_half(folder, "weights.bin", ValueError("bad row"))
    assert folder.read_bytes("weights.bin") == b"old"


def test_a_reader_never_sees_what_is_being_written(folder: StageFolder) -> None:
    with folder.open_output("items.parquet") as stream:
        stream.write(b"half")
        stream.flush()
        assert folder.files() == []
        assert not folder.exists("items.parquet")
        assert len(names_on_disk(folder)) == 1
    assert folder.files() == ["items.parquet"]


def test_a_killed_writer_leaves_no_file_that_readers_see_and_begin_clears_it(folder: StageFolder) -> None:
    folder.begin("f1")
    folder.write_bytes("shards/0.bin", b"done")
    program = (
        "import os, signal, sys\n"
        "from sracl_dist.artifacts import RunFolder\n"
        "with RunFolder(sys.argv[1]).stage('train').open_output('shards/1.bin') as stream:\n"
        "    stream.write(b'half')\n"
        "    stream.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    location = str(Path(folder.path()).parent)
    assert subprocess.run([sys.executable, "-c", program, location], check=False).returncode == -signal.SIGKILL
    assert folder.files("shards") == ["shards/0.bin"]
    assert len(names_on_disk(folder)) == 3
    assert folder.begin("f1")
    assert names_on_disk(folder) == {"shards/0.bin", STARTED}


def test_shards_are_joined_in_the_order_of_their_names(folder: StageFolder) -> None:
    folder.write_table("ranks/00001.parquet", pa.table({"key": [3, 4]}))
    folder.write_table("ranks/00000.parquet", pa.table({"key": [1, 2]}))
    folder.write_json("ranks/notes.json", {})
    assert folder.read_shards("ranks")["key"].to_pylist() == [1, 2, 3, 4]


def test_rows_can_be_chosen_while_reading(folder: StageFolder) -> None:
    for shard in range(3):
        folder.write_table(f"ranks/{shard}.parquet", pa.table({"key": [2 * shard, 2 * shard + 1], "text": ["a", "b"]}))
    wanted = pc.field("key").isin([4, 1])
    assert folder.read_shards("ranks", ["text"], wanted)["text"].to_pylist() == ["b", "a"]
    assert folder.read_table("ranks/1.parquet", rows=wanted).num_rows == 0


def test_no_shard_at_all_is_an_error(folder: StageFolder) -> None:
    with pytest.raises(StorageError, match=r"/train/ranks holds no table; run the stage train again\.$"):
        folder.read_shards("ranks")


def test_delete_takes_missing_files_as_deleted(folder: StageFolder) -> None:
    folder.write_json("a.json", 1)
    folder.delete(["absent.json", "a.json", "a.json"])
    assert folder.files() == []


def test_begin_commit_and_manifest(folder: StageFolder) -> None:
    assert folder.manifest() is None
    assert folder.begin("f1") is False
    assert folder.manifest() is None
    folder.write_table("items.parquet", TABLE)
    folder.commit(manifest())
    assert folder.manifest() == manifest()
    assert folder.files() == ["items.parquet", MANIFEST]


def test_an_interrupted_stage_keeps_its_shards(folder: StageFolder) -> None:
    folder.begin("f1")
    folder.write_table("ranks/0.parquet", TABLE)
    assert folder.begin("f1") is True
    assert folder.files("ranks") == ["ranks/0.parquet"]


def test_other_work_starts_from_nothing_but_the_kept_folders(folder: StageFolder) -> None:
    folder.begin("f1")
    for name in ("ranks/0.parquet", "generated/0.parquet", "generated-not/0.parquet"):
        folder.write_table(name, TABLE)
    assert folder.begin("f2", keep=("generated/",)) is False
    assert folder.files() == ["generated/0.parquet", STARTED]
    assert folder.begin("f2", keep=("generated/",)) is True


def test_a_finished_stage_that_begins_again_starts_from_nothing(folder: StageFolder) -> None:
    folder.begin("f1")
    folder.write_table("ranks/0.parquet", TABLE)
    folder.commit(manifest())
    assert folder.begin("f1") is False
    assert folder.files() == [STARTED]


def test_stages_do_not_touch_each_other(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path))
    run.stage("prepare").write_json("a.json", 1)
    run.stage("train").begin("f1")
    assert run.stage("prepare").files() == ["a.json"]


@pytest.mark.parametrize("content", [b'{"stage": "tra', b"{}", b"[]", b"", b"\xff\xfe", b'{"stage": "train", "x": 1}'])
def test_a_damaged_manifest_is_named(folder: StageFolder, content: bytes) -> None:
    folder.write_bytes(MANIFEST, content)
    with pytest.raises(StorageError, match=r"manifest\.json is damaged; delete it and run the stage train again\.$"):
        folder.manifest()


@pytest.mark.parametrize("content", [b'{"finger', b"{}", b"[]", b"", b"\xff\xfe"])
def test_a_damaged_start_mark_is_named_and_no_shard_is_lost(folder: StageFolder, content: bytes) -> None:
    folder.write_table("ranks/0.parquet", TABLE)
    folder.write_bytes(STARTED, content)
    with pytest.raises(StorageError, match=r"started\.json is damaged; delete it and run the stage train again\.$"):
        folder.begin("f1")
    assert folder.exists("ranks/0.parquet")


def test_a_damaged_table_is_named(folder: StageFolder) -> None:
    folder.write_bytes("items.parquet", b"PAR1 and then something else")
    with pytest.raises(StorageError, match=r"/train/items\.parquet cannot be read; "):
        folder.read_table("items.parquet")


def test_a_missing_table_says_what_to_run(folder: StageFolder) -> None:
    with pytest.raises(StorageError, match=r"items\.parquet cannot be read; it does not exist: run the stage that"):
        folder.read_table("items.parquet")


def test_a_run_folder_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError) as caught:
        RunFolder(str(tmp_path / "file" / "run")).stage("train").write_json("a.json", 1)
    assert "a.json cannot be written; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "ro"):
        folder = RunFolder(str(tmp_path / "disk")).stage("train")
        with pytest.raises(StorageError, match=r"cannot be written; the permission is missing: mend it, or set run"):
            folder.write_json("a.json", 1)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="the permission is missing"):
        RunFolder(str(tmp_path)).stage("train").write_json("a.json", 1)


def test_a_full_disk_keeps_what_is_finished(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=256k"):
        folder = RunFolder(str(tmp_path / "disk")).stage("train")
        folder.write_bytes("small.bin", b"x" * 1000)
        with pytest.raises(StorageError, match=r"the disk is full: make room, or set run\.dir to another"):
            folder.write_bytes("large.bin", b"x" * 1_000_000)
        numbers = pa.table({"key": pa.array(os.urandom(1_000_000))})
        with pytest.raises(StorageError, match="the disk is full"):
            folder.write_table("large.parquet", numbers)
        assert names_on_disk(folder) == {"small.bin"}
        assert folder.read_bytes("small.bin") == b"x" * 1000


def test_a_file_uri_is_a_run_folder(tmp_path: Path) -> None:
    run = RunFolder(f"file://{tmp_path}/run")
    run.stage("train").write_json("a.json", 1)
    assert (tmp_path / "run" / "train" / "a.json").read_text() == "1\n"


def test_a_relative_folder_is_meant_from_here_and_tilde_is_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert RunFolder("runs/a").stage("train").path() == f"{tmp_path}/runs/a/train"
    assert RunFolder("~/runs").stage("train").path() == f"{tmp_path}/home/runs/train"


def test_a_location_that_nothing_opens_is_one_sentence() -> None:
    with pytest.raises(StorageError, match=r"^The run folder .+ cannot be opened \(.+\); change run\.dir\.$"):
        RunFolder("file://host/run")


def test_shared_tables_lie_elsewhere_and_the_other_stages_in_the_run(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"), str(tmp_path / "tables"))
    for copy in (run, pickle.loads(pickle.dumps(run))):
        for name in TABLE_STAGES:
            assert copy.stage(name).path("a.json") == f"{tmp_path}/tables/{name}/a.json"
        for name in ("train", "evaluate", "recommend", "report"):
            assert copy.stage(name).path("a.json") == f"{tmp_path}/run/{name}/a.json"
    run.stage("embed").write_json("a.json", 1)
    assert RunFolder(str(tmp_path / "other"), str(tmp_path / "tables")).stage("embed").read_json("a.json") == 1
    assert RunFolder(str(tmp_path / "tables")).stage("embed").read_json("a.json") == 1
    assert not (tmp_path / "run").exists()


def test_shared_tables_may_be_in_another_file_system(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path / "run"), f"file://{tmp_path}/tables")
    run.stage("prepare").write_json("a.json", 1)
    run.stage("train").write_json("a.json", 2)
    assert (tmp_path / "tables" / "prepare" / "a.json").read_text() == "1\n"
    assert (tmp_path / "run" / "train" / "a.json").read_text() == "2\n"


def test_messages_name_the_folder_and_the_setting_that_places_it(tmp_path: Path) -> None:
    run = RunFolder(str(tmp_path), str(tmp_path / "tables"))
    run.location = "s3://KEY:SECRET@bucket/run"
    assert run.shown == run.shown_for("train") == "s3://***@bucket/run"
    assert run.shown_for("embed") == str(tmp_path / "tables")
    assert RunFolder(str(tmp_path)).shown_for("embed") == str(tmp_path)
    assert shown_location("gs://KEY:SE@CRET@bucket/tables") == "gs://***@bucket/tables"
    with pytest.raises(StorageError, match=r"^The run folder .+ cannot be opened \(.+\); change run\.tables\.$"):
        RunFolder(str(tmp_path), "file://host/run")
    (tmp_path / "file").write_text("x")
    run = RunFolder(str(tmp_path / "run"), str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"file/prepare/a\.json cannot be written; .+check run\.tables\.$"):
        run.stage("prepare").write_json("a.json", 1)
    with mounted(tmp_path / "disk", "ro"):
        run = RunFolder(str(tmp_path / "run"), str(tmp_path / "disk"))
        with pytest.raises(StorageError, match=r"mend it, or set run\.tables to another place\.$"):
            run.stage("embed").write_json("a.json", 1)
