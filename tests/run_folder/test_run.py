"""The run folder as a whole: where stages lie, and what one goes on from when it begins."""

import pickle
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from run_files import TABLE, mounted, names_on_disk

from sracl_dist.errors import StorageError
from sracl_dist.run_folder import MANIFEST, TABLE_STAGES, Manifest, RunFolder, StageFolder
from sracl_dist.run_folder.locations import shown_location
from sracl_dist.run_folder.owner import LOCK, STARTED
from sracl_dist.run_folder.plain import sealed_json


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


def test_a_killed_writer_leaves_no_file_that_readers_see_and_the_next_work_clears_it(run: RunFolder) -> None:
    program = (
        "import os, signal, sys\n"
        "from sracl_dist.run_folder import RunFolder\n"
        "with RunFolder(sys.argv[1]).working_on('train', 'f1') as folder:\n"
        "    folder.write_bytes('shards/0.bin', b'done')\n"
        "    with folder.open_output('shards/1.bin') as stream:\n"
        "        stream.write(b'half')\n"
        "        stream.flush()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, run.location], check=False).returncode == -signal.SIGKILL
    folder = run.stage("train")
    assert folder.files("shards") == ["shards/0.bin"]
    assert len(names_on_disk(folder)) == 4, "with started.json and the lock"
    with run.working_on("train", "f1") as folder:
        assert names_on_disk(folder) == {"shards/0.bin", STARTED, LOCK}
    assert names_on_disk(folder) == {"shards/0.bin", STARTED}


def test_work_commit_and_manifest(run: RunFolder, folder: StageFolder) -> None:
    assert folder.manifest() is None
    with run.working_on("train", "f1") as work:
        assert folder.manifest() is None
        work.write_table("items.parquet", TABLE)
        work.commit(manifest())
    found = folder.manifest()
    assert found is not None
    assert replace(found, sums="", tables="") == manifest()
    assert folder.files() == ["items.parquet"]
    assert names_on_disk(folder) == {"items.parquet", MANIFEST}
    assert folder.damage(found, thorough=True) == {}


def test_an_interrupted_stage_keeps_its_shards(run: RunFolder) -> None:
    with run.working_on("train", "f1") as folder:
        folder.write_table("ranks/0.parquet", TABLE)
    with run.working_on("train", "f1") as folder:
        assert folder.files("ranks") == ["ranks/0.parquet"]
        assert folder.damaged_before == ()


def test_other_work_starts_from_nothing_but_what_is_kept(run: RunFolder) -> None:
    with run.working_on("train", "f1", libraries=["checkpoints/"]) as folder:
        for name in ("ranks/0.parquet", "generated/0.parquet", "generated-not/0.parquet"):
            folder.write_table(name, TABLE)
        folder.plain.write_bytes("checkpoints/0", b"of a library")
    with run.working_on("train", "f2", keep=["generated/"], libraries=["checkpoints/"]) as folder:
        assert folder.files() == ["generated/0.parquet"]
        assert names_on_disk(folder) == {"generated/0.parquet", STARTED, LOCK}


def test_what_libraries_wrote_stays_for_the_same_work(run: RunFolder) -> None:
    for _ in range(2):
        with run.working_on("train", "f1", libraries=["checkpoints/"]) as folder:
            folder.plain.write_bytes("checkpoints/0", b"of a library")
            folder.commit(manifest())
    with run.working_on("train", "f1", libraries=["checkpoints/"]) as folder:
        assert folder.library_files("checkpoints") == ["checkpoints/0"]
        assert folder.files() == []


def test_what_a_killed_writer_did_not_get_to_is_no_damage(run: RunFolder) -> None:
    """The sum comes first; in a finished stage the same is damage."""
    with run.working_on("train", "f1") as folder:
        folder.write_bytes("ranks/0.bin", b"a")
        folder.write_bytes("ranks/1.bin", b"b")
    Path(folder.path("ranks/1.bin")).unlink()
    with run.working_on("train", "f1") as folder:
        assert (folder.files(), folder.damaged_before) == (["ranks/0.bin"], ())
        folder.commit(manifest())
    Path(folder.path("ranks/0.bin")).unlink()
    with run.working_on("train", "f1") as folder:
        assert (folder.files(), folder.damaged_before) == ([], ("ranks/0.bin",))


@pytest.mark.parametrize("name", ["checkpoints/mine.pt", "local/precious.txt", "manifest.json", ".lock"])
def test_names_that_libraries_use_are_somebody_elses_where_no_stage_worked(run: RunFolder, name: str) -> None:
    path = Path(run.stage("train").path(name))
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with (
        pytest.raises(StorageError, match=r"holds '.+' and nothing that a stage wrote"),
        run.working_on("train", "f1", libraries=["checkpoints/", "local/"]),
    ):
        pass
    assert path.read_text() == "mine"


def test_checkpoints_stay_where_nothing_tells_whose_they_are(run: RunFolder) -> None:
    """They tell it themselves when they are read."""
    with run.working_on("train", "f1", libraries=["checkpoints/"]) as folder:
        folder.write_bytes("metrics.jsonl", b"{}")
        folder.plain.write_bytes("checkpoints/0", b"of a library")
    Path(folder.path(STARTED)).write_text("")
    with run.working_on("train", "f1", libraries=["checkpoints/"]) as folder:
        assert folder.library_files("checkpoints") == ["checkpoints/0"]


def test_stages_do_not_touch_each_other(run: RunFolder) -> None:
    run.stage("prepare").write_json("a.json", 1)
    with run.working_on("train", "f1"):
        assert run.stage("prepare").files() == ["a.json"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"stage": "tra',
        b"{}",
        b"[]",
        b"",
        b"\xff\xfe",
        b'{"stage": "train", "x": 1}',
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"1" * 10_000,
        sealed_json(asdict(manifest()) | {"rows": [1]}),
        sealed_json(asdict(manifest()) | {"rows": {"items": "many"}}),
        sealed_json(asdict(manifest()) | {"fingerprint": None}),
        sealed_json(asdict(manifest()) | {"version": True}),
        sealed_json(asdict(manifest()) | {"unknown": 1}),
    ],
)
def test_a_damaged_manifest_is_named_and_the_stage_done_again_from_its_files(run: RunFolder, content: bytes) -> None:
    with run.working_on("train", "f1") as folder:
        folder.write_table("ranks/0.parquet", TABLE)
        folder.commit(manifest())
    Path(folder.path(MANIFEST)).write_bytes(content)
    with pytest.raises(StorageError, match=r"manifest\.json is damaged; run jobs/train\.py again, which repairs it\.$"):
        folder.manifest()
    with run.working_on("train", "f1") as folder:
        assert folder.files() == ["ranks/0.parquet"]


@pytest.mark.parametrize("content", [b'{"finger', b"{}", b"[]", b"", b"\xff\xfe", b'{"fingerprint": 1, "owner": {}}'])
def test_a_damaged_start_mark_loses_no_shard(run: RunFolder, content: bytes) -> None:
    with run.working_on("train", "f1") as folder:
        folder.write_table("ranks/0.parquet", TABLE)
    Path(folder.path(STARTED)).write_bytes(content)
    with run.working_on("train", "f1") as folder:
        assert folder.read_table("ranks/0.parquet").equals(TABLE)


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
