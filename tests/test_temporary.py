"""Folders of programs: where they lie, who deletes them, and whose are left alone."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sracl_dist import temporary as module
from sracl_dist.cli import exit_status
from sracl_dist.errors import SetupError, StorageError
from sracl_dist.temporary import MAX_SOCKET_BYTES, SOCKET, delete_leftovers, machine_folder, own_folder

NAME = f"sracl-{os.getuid()}"
PROGRAM = """
import sys, time
from sracl_dist.temporary import own_folder
with own_folder() as folder:
    open(f"{folder}/file", "w").close()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of the test's own, with a short path."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setattr("tempfile.tempdir", folder)
        monkeypatch.setattr(module, "_current", None)
        yield Path(folder)


def start() -> tuple[subprocess.Popen[str], Path]:
    """A program that keeps its folder until its input ends."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    return program, Path(program.stdout.readline().strip())


def finish(program: subprocess.Popen[str]) -> None:
    program.communicate()
    assert program.returncode == 0


def kill(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.communicate()


def test_all_temporary_files_lie_in_one_folder_that_goes_with_the_block(place: Path) -> None:
    before = dict(os.environ)
    with own_folder() as folder:
        assert folder.parent == place / NAME
        assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
        assert tempfile.gettempdir() == os.environ["TMPDIR"] == str(folder)
        assert os.environ["RAY_TMPDIR"] == str(place)
        Path(tempfile.mkdtemp(), "file").touch()
        with own_folder() as within:
            assert within == folder
        assert folder.exists()
    assert tempfile.gettempdir() == str(place)
    assert dict(os.environ) == before
    assert not list((place / NAME).iterdir())


@pytest.mark.parametrize(("error", "status"), [(SetupError("no."), 1), (KeyboardInterrupt(), 130), (None, 0)])
def test_a_job_has_one_whatever_its_end(place: Path, error: BaseException | None, status: int) -> None:
    folders = []

    def work() -> None:
        folders.append(tempfile.gettempdir())
        tempfile.mkdtemp()
        if error is not None:
            raise error

    assert exit_status(work) == status
    assert Path(folders[0]).parent == place / NAME
    assert not list((place / NAME).iterdir())


def test_a_program_that_a_program_starts_has_its_folder_beside_it(place: Path) -> None:
    with own_folder() as folder:
        program, other = start()
        assert other.parent == folder.parent == machine_folder()
        finish(program)
        assert not other.exists()
        assert folder.exists()


def test_what_a_killed_program_left_is_deleted_by_the_next_and_a_live_one_keeps_its_own(place: Path) -> None:
    living, kept = start()
    killed, left = start()
    kill(killed)
    assert (left / "file").exists()
    with own_folder():
        assert not left.exists()
        assert (kept / "file").exists()
    other, _ = start()
    finish(other)
    assert (kept / "file").exists()
    finish(living)
    assert not list((place / NAME).iterdir())


def test_the_time_of_a_folder_does_not_matter() -> None:
    living, kept = start()
    for path in (kept, kept / "lock", kept / "file"):
        os.utime(path, (0, 0))
    delete_leftovers()
    assert (kept / "file").exists()
    finish(living)


CHILD = """
import subprocess, sys
from sracl_dist.temporary import own_folder
with own_folder() as folder:
    print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL).pid, folder, flush=True)
    sys.stdin.read()
"""


def test_programs_that_the_owner_starts_do_not_hold_its_lock() -> None:
    program = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    child, left = program.stdout.readline().split()
    kill(program)
    try:
        assert Path(left).exists()
        delete_leftovers()
        assert not Path(left).exists()
        assert Path("/proc", child).exists()
    finally:
        os.kill(int(child), signal.SIGKILL)


@pytest.mark.parametrize("step", ["tempfile.mkdtemp", "os.open", "fcntl.flock"])
def test_a_folder_that_is_deleted_before_it_is_locked_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    module_name, name = step.split(".")
    owner = sys.modules[module_name]
    real, taken = getattr(owner, name), []

    def take(*arguments: object, **options: object) -> object:
        result = real(*arguments, **options) if step != "fcntl.flock" else None
        if not taken:
            taken.extend((place / NAME).iterdir())
            delete_leftovers()
        return result if step != "fcntl.flock" else real(*arguments, **options)

    (place / NAME).mkdir(mode=0o700)
    monkeypatch.setattr(owner, name, take)
    with own_folder() as folder:
        assert folder.exists()
        assert [folder] == list((place / NAME).iterdir())
        assert len(taken) == 1
        assert taken[0] != folder


def test_arrays_of_killed_processes_go_too(place: Path) -> None:
    (place / NAME).mkdir(mode=0o700)
    (place / NAME / "tables-0123").write_bytes(b"left")
    (place / NAME / "other").mkdir()
    with own_folder():
        assert not (place / NAME / "tables-0123").exists()
        assert (place / NAME / "other").exists(), "nothing that is not ours is deleted"


@pytest.mark.parametrize("kind", ["link", "open to others", "somebody else's"])
def test_a_folder_that_others_can_write_to_is_refused(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / NAME
    if kind == "link":
        (place / "elsewhere").mkdir()
        folder.symlink_to(place / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777 if kind == "open to others" else 0o700)
    if kind == "somebody else's":
        if os.getuid() != 0:
            pytest.skip("only root gives a folder away")
        os.chown(folder, 12345, 12345)
    with pytest.raises(StorageError, match=f"^{folder} belongs to somebody else"), own_folder():
        pass
    assert tempfile.gettempdir() == str(place)


def test_a_place_that_cannot_be_written_is_told_in_a_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(place / "file"))
    with pytest.raises(StorageError, match=r"file cannot hold .*Not a directory.* set TMPDIR to another"), own_folder():
        pass


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_tmpdir_that_cannot_be_used_is_refused(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python would take another folder without a word."""
    (place / "file").write_text("")
    monkeypatch.setenv("TMPDIR", str(place / name))
    monkeypatch.setattr("tempfile.tempdir", None)
    with pytest.raises(StorageError, match=f"{place / name} .* set TMPDIR"), own_folder():
        pass


def test_a_folder_whose_path_is_not_utf8_has_another_name(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = place / os.fsdecode(b"b\xff")
    odd.mkdir()
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.setattr("tempfile.tempdir", str(odd))
    monkeypatch.setattr(module, "SHORT", place)
    monkeypatch.setattr(module, "MAX_SOCKET_BYTES", 1000)
    with own_folder() as folder:
        assert str(folder).encode().startswith(bytes(place / NAME))
        assert folder.resolve().parent == machine_folder() == odd / NAME
    assert not list((odd / NAME).iterdir())


@pytest.fixture
def long_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A long TMPDIR, and a place for short names of the test's own."""
    long = place / "long" / ("x" * 80)
    long.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", str(long))
    monkeypatch.setattr(module, "SHORT", place)
    return long


def test_a_folder_with_a_long_path_has_a_short_name_for_its_sockets(long_place: Path, place: Path) -> None:
    with own_folder() as folder:
        path = f"{folder}{SOCKET}"
        assert len(path) <= MAX_SOCKET_BYTES
        Path(path).parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
        real = folder.resolve()
        assert real.parent == machine_folder() == long_place / NAME
        assert list(real.rglob("plasma_store"))
    assert not list((long_place / NAME).iterdir())
    assert not list((place / NAME).iterdir())


def test_a_short_name_whose_folder_is_gone_is_deleted_by_the_next(long_place: Path, place: Path) -> None:
    (place / NAME).mkdir(mode=0o700)
    (place / NAME / "job-gone").symlink_to(long_place / NAME / "job-gone")
    with own_folder() as folder:
        assert [path.name for path in (place / NAME).iterdir()] == [folder.name]


def test_where_no_short_name_can_be_made_it_is_told(long_place: Path, place: Path) -> None:
    (place / NAME).symlink_to(place)
    with pytest.raises(StorageError, match="belongs to somebody else"), own_folder():
        pass
    assert not list((long_place / NAME).iterdir())
