"""Files of a folder: they appear whole or not at all, and errors of the disk are one sentence."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from run_files import TABLE, mounted, names_on_disk

from sracl_dist.errors import StorageError
from sracl_dist.run_folder import RunFolder, StageFolder


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


def test_a_table_is_written_piece_by_piece(folder: StageFolder) -> None:
    assert folder.write_tables("rows.parquet", TABLE.schema, [TABLE.slice(0, 1), TABLE.slice(1)]) == TABLE.num_rows
    assert folder.read_table("rows.parquet").equals(TABLE)
    assert folder.write_tables("none.parquet", TABLE.schema, []) == 0
    assert folder.read_table("none.parquet").equals(TABLE.slice(0, 0))


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
    with pytest.raises(StorageError, match=r"/train/ranks holds no table; delete .+, which makes it anew\.$"):
        folder.read_shards("ranks")


def test_delete_takes_missing_files_as_deleted(folder: StageFolder) -> None:
    folder.write_json("a.json", 1)
    folder.delete(["absent.json", "a.json", "a.json"])
    assert folder.files() == []


def test_a_damaged_table_is_named(folder: StageFolder) -> None:
    folder.write_bytes("items.parquet", b"PAR1 and then something else")
    with pytest.raises(StorageError, match=r"/train/items\.parquet cannot be read; "):
        folder.read_table("items.parquet")


def test_a_folder_in_place_of_a_table_is_told(folder: StageFolder, tmp_path: Path) -> None:
    Path(folder.path("items.parquet")).mkdir(parents=True)
    for rows in (None, pc.field("key") == 1):
        with pytest.raises(StorageError, match=r"/train/items\.parquet cannot be read; a folder is in its place: move"):
            folder.read_table("items.parquet", ["key"], rows)


def test_a_missing_table_says_what_to_run(folder: StageFolder) -> None:
    with pytest.raises(StorageError, match=r"items\.parquet cannot be read; it does not exist: delete .+ run jobs"):
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
