"""Temporary files of a program: all in one folder of its own, which goes with it.

    $TMPDIR/sracl-<number of the user>/job-<random>/

Within the block TMPDIR names this folder, for this process and for those that it starts, Ray's workers among them. The
program holds a lock on it, which ends with the process, however it ends: what a killed program has left, the next one
deletes. Arrays that processes share (`sracl_dist.shared_arrays`) lie beside the folders of programs and tell by locks
too who uses them.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sracl_dist.environment import environment
from sracl_dist.errors import StorageError
from sracl_dist.visible import is_utf8

PREFIX = "job-"
LOCK = "lock"
SHORT = Path("/tmp")  # noqa: S108 - only folders of our own are made there, and no name within them is guessable
"""Where a folder whose path Ray cannot use, such as one that is too long for sockets, has a second, short name."""
MAX_SOCKET_BYTES = 107
SOCKET = "/ray-00/session_2000-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest path of a socket within the folder; Ray makes it."""
REMOVAL_S = 10.0
"""How long processes that are ending may still write into the folder."""

_current: Path | None = None


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for all temporary files of this program, deleted at the end; within a block of its own, that one's.

    Raises:
        StorageError: the folder for temporary files cannot be used.
    """
    global _current
    if _current is not None:
        yield _current
        return
    _require_place()
    delete_leftovers()
    folder, lock = _make()
    try:
        _current = _short_name(folder)
        with _used_by_all(_current):
            yield _current
    finally:
        if _current not in (None, folder):
            _current.unlink(missing_ok=True)
        _current = None
        _remove(folder)
        os.close(lock)


def machine_folder() -> Path:
    """The folder that the programs of this user on this machine share; the same within and outside of `own_folder`.

    Raises:
        StorageError: it cannot be made, or is open to others.
    """
    with temporary_errors():
        place, name = Path(tempfile.gettempdir()).resolve(), f"sracl-{os.getuid()}"
        return place.parent if place.parent.name == name else _folder_of_user(place)


def delete_leftovers(but: Path | None = None) -> None:
    """Delete what killed processes have left in the folder of this user: what nobody holds a lock on, except `but`."""
    _delete_leftovers(machine_folder(), but)


def _delete_leftovers(folder: Path, but: Path | None = None) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process may delete it too
            if path.is_symlink():
                if not path.exists():
                    path.unlink()
            elif path.is_file() and path != but:
                _delete_file_of_the_dead(path)
            elif path.is_dir() and path.name.startswith(PREFIX):
                _delete_folder_of_the_dead(path)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one at the path."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(descriptor)
    return (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino)


@contextlib.contextmanager
def temporary_errors(thing: str = "what this program needs") -> Iterator[None]:
    """Turn an error of the folder for temporary files into one sentence; `thing` is what it cannot hold."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"The folder for temporary files {tempfile.gettempdir()} cannot hold {thing} ({error.strerror}); make room "
            f"there, or set TMPDIR to another folder."
        ) from None


def _require_place() -> None:
    """Refuse a TMPDIR that cannot be used; Python would take another folder without a word, perhaps a small one."""
    named = os.environ.get("TMPDIR") or None
    try:
        with tempfile.TemporaryFile(dir=named):
            return
    except OSError as error:
        raise StorageError(
            f"No temporary file can be made in {named or 'the usual folders'} ({error.strerror}); set TMPDIR to a "
            f"folder that can be written to."
        ) from None


def _folder_of_user(place: Path) -> Path:
    folder = place / f"sracl-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StorageError(f"{folder} belongs to somebody else; delete it, or set TMPDIR to a folder of your own.")
    return folder


def _make() -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock, which no other program is started with."""
    while True:
        with temporary_errors():
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=machine_folder()))
            with contextlib.suppress(FileNotFoundError):  # taken for a leftover before it had its lock
                lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if is_at(lock, folder / LOCK):
                    return folder, lock
                os.close(lock)


def _delete_folder_of_the_dead(folder: Path) -> None:
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _delete_file_of_the_dead(path: Path) -> None:
    lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(lock, path):
            path.unlink()
    finally:
        os.close(lock)


def _short_name(folder: Path) -> Path:
    """The folder, or a link to it where its path is too long for the sockets within, or no UTF-8, which Ray needs."""
    path = f"{folder}{SOCKET}"
    if len(os.fsencode(path)) <= MAX_SOCKET_BYTES and is_utf8(path):
        return folder
    with temporary_errors("sockets, since its path is long or no UTF-8, and neither can /tmp"):
        short = _folder_of_user(SHORT)
        _delete_leftovers(short)
        link = short / folder.name
        link.symlink_to(folder)
        return link


@contextlib.contextmanager
def _used_by_all(folder: Path) -> Iterator[None]:
    """Let this process and those that it starts make their temporary files in the folder."""
    # Where Ray notes the address of a cluster that runs on this machine; it would look for it in the new folder.
    ray_place = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - Ray's own default
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        with environment({"TMPDIR": str(folder), "RAY_TMPDIR": ray_place}):
            yield
    finally:
        tempfile.tempdir = before


def _remove(folder: Path) -> None:
    """Delete the folder; processes that end at the same moment may still add to it."""
    deadline = time.monotonic() + REMOVAL_S
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
