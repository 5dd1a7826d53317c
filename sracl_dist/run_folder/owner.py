"""Who works on a stage: one program at a time, told by a lock where the file system has locks.

    started.json      the work, and the program that does it
    heartbeat.json    where there are no locks: a number that the program raises while it lives
    .lock             where there are

A killed program's lock ends with it. Without locks, a program of this machine is looked up among its processes, and one
of another machine is dead when it has not raised its number for LEASE_S. What the owner's processes write is only
committed while started.json names it, so that two programs which each took the other for dead never mix their files.
"""

import contextlib
import errno
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sracl_dist.errors import StorageError
from sracl_dist.observe import duration, say
from sracl_dist.run_folder.folder import Folder
from sracl_dist.run_folder.locations import is_object_store
from sracl_dist.run_folder.plain import dataclass_from, parse_json
from sracl_dist.temporary import is_at

STARTED = "started.json"
HEARTBEAT = "heartbeat.json"
LOCK = ".lock"
NAMES = (STARTED, HEARTBEAT, LOCK)
BEAT_S = 10.0
LEASE_S = 60.0
POLL_S = 1.0
ENDING_S = 5.0
"""How long a program that was killed may take to end, so that the same command can be run again at once."""
ENDING_POLL_S = 0.1
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The program that works on a stage."""

    id: str
    host: str
    process: int
    machine: str
    """Tells apart what numbers processes anew: a start of the system, a container."""
    process_start: str
    """Tells apart processes that had the same number one after the other."""
    since: str

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"


@dataclass(frozen=True, kw_only=True)
class Started:
    """What started.json holds."""

    fingerprint: str | None = None
    """Of the work whose files lie in the folder; None before anything is known of them."""
    owner: Owner | None = None
    """None where the program has ended and told so."""
    damaged: list[str] = field(default_factory=list)
    """Files of the work that were found damaged since it began."""


def read_started(folder: Folder) -> Started | None:
    """What started.json says; None where it is missing or damaged.

    Raises:
        StorageError: it cannot be read.
    """
    try:
        content = folder.read_bytes(STARTED)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    with contextlib.suppress(ValueError):
        value = parse_json(content)
        if isinstance(value, dict) and value.get("owner") is not None:
            value = value | {"owner": dataclass_from(Owner, value["owner"])}
        return dataclass_from(Started, value)
    return None


def require_owner(folder: Folder, owner_id: str) -> None:
    """Refuse to go on where the stage has another owner by now.

    Raises:
        StorageError: it has.
    """
    started = read_started(folder)
    if started is None or started.owner is None or started.owner.id != owner_id:
        other = "" if started is None or started.owner is None else f" by {started.owner}"
        raise StorageError(
            f"The work on {folder.shown()} was taken over{other}; this program stops, and what it has committed stays."
        )


@contextlib.contextmanager
def owned(folder: Folder) -> Iterator[Owner]:
    """Own a stage for the duration of the block; `folder` is a plain view of the stage's folder.

    Raises:
        StorageError: another program owns it.
    """
    owner = Owner(
        id=uuid.uuid4().hex,
        host=socket.gethostname(),
        process=os.getpid(),
        machine=_machine(),
        process_start=_process_start(os.getpid()),
        since=time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
    )
    with _lock(folder) as has_lock:
        before = read_started(folder)
        if not has_lock and before is not None and before.owner is not None:
            _require_dead(folder, before.owner)
        elif not has_lock and before is None:
            _require_silence(folder, None)  # of an owner whose name cannot be read
        write_started(folder, replace(before or Started(), owner=owner))
        with contextlib.nullcontext() if has_lock else _beating(folder, owner):
            try:
                yield owner
            finally:
                with contextlib.suppress(StorageError):
                    _give_up(folder, owner)


def write_started(folder: Folder, started: Started) -> None:
    """Say whose files lie in the folder, and who works on it."""
    folder.write_json(STARTED, asdict(started))


def _give_up(folder: Folder, owner: Owner) -> None:
    """Say that nobody works on it any more, unless the work is done or somebody else's."""
    started = read_started(folder)
    if started is not None and started.owner is not None and started.owner.id == owner.id:
        write_started(folder, replace(started, owner=None))


@contextlib.contextmanager
def _lock(folder: Folder) -> Iterator[bool]:
    """Hold the lock of the folder; yields whether its file system has locks."""
    if is_object_store(folder.filesystem):
        yield False
        return
    path = Path(folder.path(LOCK))
    while True:
        with folder.errors(LOCK, "written"):
            folder.filesystem.create_dir(folder.path(), recursive=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            has_lock = _take(folder, descriptor)
            if has_lock and not is_at(descriptor, path):
                continue  # its owner has ended and deleted it meanwhile
            try:
                yield has_lock
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _take(folder: Folder, descriptor: int) -> bool:
    try:
        if not _in_time(lambda: _try_lock(descriptor)):
            started = read_started(folder)
            raise _held(folder, None if started is None else started.owner)
    except OSError as error:
        if error.errno in _WITHOUT_LOCKS:
            return False
        raise
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_time(is_free: Callable[[], bool]) -> bool:
    """Whether the stage becomes free while a program that was killed may still be ending."""
    deadline = time.monotonic() + ENDING_S
    while not is_free():
        if time.monotonic() > deadline:
            return False
        time.sleep(ENDING_POLL_S)
    return True


def _held(folder: Folder, owner: Owner | None) -> StorageError:
    who = "another program" if owner is None else f"another program ({owner})"
    return StorageError(f"{folder.shown()} is being written by {who}; wait until it has ended, or stop it.")


def _require_dead(folder: Folder, owner: Owner) -> None:
    """Refuse where the owner that started.json names lives, as far as can be told without a lock."""
    if owner.machine == _machine():
        if not _in_time(lambda: _process_start(owner.process) != owner.process_start):
            raise _held(folder, owner)
        return
    _require_silence(folder, owner)


def _require_silence(folder: Folder, owner: Owner | None) -> None:
    """Refuse where an owner of another machine raises its number within LEASE_S."""
    before, deadline = _beat(folder), time.monotonic() + LEASE_S
    if before is None and owner is None:
        return
    say(
        f"{folder.shown()} was being written by {owner or 'another program'}; it is taken over unless that program "
        f"gives a sign of life within {duration(LEASE_S)}"
    )
    while time.monotonic() < deadline:
        time.sleep(POLL_S)
        if _beat(folder) != before:
            raise _held(folder, owner)


def _beat(folder: Folder) -> object:
    try:
        return folder.read_json(HEARTBEAT) if folder.exists(HEARTBEAT) else None
    except StorageError:
        return None


@contextlib.contextmanager
def _beating(folder: Folder, owner: Owner) -> Iterator[None]:
    """Raise the number in the background."""
    ended = threading.Event()

    def beat() -> None:
        number = 0
        while True:
            with contextlib.suppress(StorageError):  # the next one may get through
                folder.write_json(HEARTBEAT, {"owner": owner.id, "beat": number})
            number += 1
            if ended.wait(BEAT_S):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(StorageError):
            folder.delete([HEARTBEAT])


def _machine() -> str:
    """The same for all programs that see each other's process numbers, and for no others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {uuid.getnode()}"


def _process_start(process: int) -> str:
    """When the process started, in the system's ticks; empty where there is none."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
