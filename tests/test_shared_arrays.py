"""Files that processes share: who makes them, who deletes them, and which are not believed."""

import errno
import gc
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from sracl_dist import shared_arrays as module
from sracl_dist.errors import StorageError
from sracl_dist.shared_arrays import Room, shared_arrays

VALUES = np.arange(10_000, dtype=np.int32)
LEAVE = "import sys; sys.path.insert(0, {tests!r}); import test_shared_arrays as t; t.leave_half({whole})"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, in a folder for temporary files of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"sracl-{os.getuid()}"


class Maker:
    """Fills two arrays, and counts how often."""

    def __init__(self, shift: int = 0) -> None:
        self.times, self._shift = 0, shift

    def __call__(self, room: Room) -> None:
        self.times += 1
        room.add("values", np.int32, VALUES.shape)[:] = VALUES + self._shift
        room.add("none", np.float32, (0, 7))


def get(maker: Maker, made_from: str = "a") -> dict[str, np.ndarray]:
    return shared_arrays("numbers", made_from, maker)


@settings(deadline=None)
@given(
    st.lists(
        arrays_of.arrays(
            st.sampled_from([np.int32, np.int64, np.float32, np.bool_]),
            arrays_of.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=9),
        ),
        max_size=4,
    )
)
def test_the_arrays_are_those_that_were_put_there(given_arrays: list[np.ndarray]) -> None:
    def fill(room: Room) -> None:
        for number, values in enumerate(given_arrays):
            room.add(str(number), values.dtype, values.shape)[...] = values

    found = shared_arrays("any", repr(given_arrays), fill)
    assert list(found) == [str(number) for number in range(len(given_arrays))]
    for own, values in zip(found.values(), given_arrays, strict=True):
        assert own.dtype == values.dtype
        np.testing.assert_array_equal(own, values)


def test_it_is_made_once_shared_and_deleted_by_the_last_reader(folder: Path) -> None:
    maker = Maker()
    one, two = get(maker), get(maker)
    assert maker.times == 1
    assert one["none"].shape == (0, 7)
    with pytest.raises(ValueError, match="read-only"):
        one["values"][0] = 1
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    del one
    gc.collect()
    assert path.exists()
    np.testing.assert_array_equal(two["values"], VALUES)
    part = two["values"][5:]
    del two
    gc.collect()
    assert path.exists(), "a part of an array is enough to keep it"
    del part
    gc.collect()
    assert not path.exists()


def test_what_is_made_from_something_else_is_something_else() -> None:
    one, other = get(Maker(), "a"), get(Maker(3), "b")
    assert other["values"][0] - one["values"][0] == 3


def test_a_machine_that_was_started_again_believes_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(whole=True)
    assert len(list(folder.iterdir())) == 1
    boot = tmp_path / "boot"
    boot.write_text("another")
    monkeypatch.setattr(module, "BOOT", boot)
    maker = Maker()
    kept = get(maker)
    assert maker.times == 1
    assert len(list(folder.iterdir())) == 1, "and the file of before is deleted"
    assert kept


def leave(*, whole: bool) -> None:
    """Another process dies with the file made, or half made."""
    code = LEAVE.format(tests=str(Path(__file__).parent), whole=whole)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9


def leave_half(whole: bool) -> None:
    """What that process does."""

    def half(room: Room) -> None:
        room.add("values", np.int32, VALUES.shape)[:100] = 7
        os._exit(9)

    if not whole:
        shared_arrays("numbers", "a", half)
    kept = get(Maker())
    assert kept
    os._exit(9)


def test_what_a_killed_process_left_is_used_where_it_is_whole(folder: Path) -> None:
    leave(whole=True)
    assert len(list(folder.iterdir())) == 1
    maker = Maker()
    np.testing.assert_array_equal(get(maker)["values"], VALUES)
    assert maker.times == 0


@pytest.mark.parametrize("damage", ["half", "truncated", "longer", "empty", "other format"])
def test_what_is_not_whole_is_made_anew(folder: Path, damage: str) -> None:
    leave(whole=damage != "half")
    (path,) = folder.iterdir()
    size = path.stat().st_size
    if damage in ("truncated", "longer"):
        os.truncate(path, size + (-1 if damage == "truncated" else 1))
    if damage == "empty":
        os.truncate(path, 0)
    if damage == "other format":
        path.write_bytes(path.read_bytes().replace(module.FORMAT.encode(), b"sracl_dist arrays 0"))
    maker = Maker()
    np.testing.assert_array_equal(get(maker)["values"], VALUES)
    assert maker.times == 1


def test_what_killed_processes_left_is_deleted_by_who_makes_another(folder: Path) -> None:
    leave(whole=True)
    (left,) = folder.iterdir()
    used = get(Maker(), "used")
    assert not left.exists()
    others = get(Maker(), "others")
    assert len(list(folder.iterdir())) == 2
    assert used
    assert others


def make_slowly(made: Any, together: Any) -> None:
    """Report each making and wrong values, and keep the arrays until all have them."""

    def fill(room: Room) -> None:
        values = room.add("values", np.int32, VALUES.shape)
        made.put("made")
        time.sleep(0.05)
        values[:] = VALUES

    together.wait(20)
    found = shared_arrays("slow", "a", fill)
    if not np.array_equal(found["values"], VALUES):
        made.put("wrong")
    together.wait(20)


@pytest.mark.parametrize("attempt", range(4))
def test_of_several_processes_one_makes_it_and_none_waits_for_ever(attempt: int) -> None:
    fork = multiprocessing.get_context("fork")
    made, together = fork.Queue(), fork.Barrier(6)
    workers = [fork.Process(target=make_slowly, args=(made, together)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 6, attempt
    assert made.get(timeout=5) == "made"
    assert made.empty()


def test_a_failure_leaves_nothing_and_is_told(folder: Path) -> None:
    def fail(room: Room) -> None:
        room.add("values", np.int32, (5,))
        raise StorageError("the table is damaged")

    with pytest.raises(StorageError, match=r"^the table is damaged$"):
        shared_arrays("numbers", "a", fail)
    assert not list(folder.iterdir())
    assert get(Maker())


def test_a_full_disk_is_told_in_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match=r"cannot hold 40\.0 GB of tables .*No space left.* set TMPDIR to another"):
        shared_arrays("numbers", "a", lambda room: room.add("values", np.int32, (10**10,)))
    assert not list(folder.iterdir())


def test_a_disk_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"cannot hold .*Not a directory"):
        get(Maker())


def test_a_folder_of_somebody_else_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="belongs to somebody else"):
        get(Maker())
