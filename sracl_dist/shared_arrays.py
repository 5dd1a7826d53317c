"""Arrays that the processes of a machine share: made by one of them, in a file that all map.

    $TMPDIR/sracl-<number of the user>/<name>-<hash>

The system keeps one copy of the file's pages in memory, however many processes read them, and may drop them and read
them again. The hash is of what the arrays are made from and of the machine's last start, behind which a file may look
whole that was never written to its end.

Locks tell who is there, and end with the process that holds them, however it ends: who makes a file has it alone, who
reads it shares it. The header is written last, so a file without one was left by a process that died, and the next one
makes it anew. The last reader deletes the file; what killed readers leave, whoever next makes another, or the next
program.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import mmap
import os
import random
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from sracl_dist.temporary import delete_leftovers, is_at, machine_folder, temporary_errors

HEADER_BYTES = mmap.ALLOCATIONGRANULARITY
"""Size of the header, and what the places of arrays in the file are multiples of."""
FORMAT = "sracl_dist arrays 1"
PAUSE_S = (0.001, 0.02)
"""How long a process waits before it looks again, at least and at most."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Room:
    """The arrays of a file that is being made."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._end = descriptor, HEADER_BYTES
        self._arrays: dict[str, tuple[str, list[int], int]] = {}

    def add(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """A new array of zeros in the file.

        Raises:
            StorageError: the disk has no room for it.
        """
        kind, start = np.dtype(dtype), self._end
        num_bytes = kind.itemsize * math.prod(shape)
        self._arrays[name] = (kind.str, list(shape), start)
        if not num_bytes:
            return np.zeros(shape, kind)
        with _errors(num_bytes):
            # Without its place reserved, a full disk would end the process at some later write.
            os.posix_fallocate(self._descriptor, start, num_bytes)
            mapped = mmap.mmap(self._descriptor, num_bytes, offset=start)
        self._end += -(-num_bytes // HEADER_BYTES) * HEADER_BYTES
        return np.frombuffer(mapped, kind).reshape(shape)

    def close(self) -> None:
        """Declare the file whole."""
        os.ftruncate(self._descriptor, self._end)
        header = json.dumps({"format": FORMAT, "num_bytes": self._end, "arrays": self._arrays}).encode()
        os.pwrite(self._descriptor, header.ljust(HEADER_BYTES), 0)


def shared_arrays(name: str, made_from: str, make: Callable[[Room], None]) -> dict[str, NDArray[Any]]:
    """The arrays, which nobody can write to; they are there until the last of them is forgotten.

    Args:
        name: of the file, for those who look into the folder.
        made_from: tells apart all that the arrays can be made from.
        make: adds the arrays and fills them; called by one process of the machine, while the others wait for it.

    Raises:
        StorageError: the folder for temporary files cannot be used or has no room; also what `make` raises.
    """
    boot = BOOT.read_text() if BOOT.exists() else ""
    path = machine_folder() / f"{name}-{hashlib.sha256(f'{boot}{made_from}'.encode()).hexdigest()[:20]}"
    while True:
        with _errors():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            arrays = _read_or_made(descriptor, path, make)
        except BaseException:
            os.close(descriptor)
            raise
        if arrays is not None:
            return arrays
        os.close(descriptor)
        time.sleep(random.uniform(*PAUSE_S))


def _read_or_made(descriptor: int, path: Path, make: Callable[[Room], None]) -> dict[str, NDArray[Any]] | None:
    """The arrays, whose memory owns the descriptor from here on, or None where another process came between."""
    with _errors():
        fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits where another process makes it
        if is_at(descriptor, path) and _header(descriptor) is None:
            try:
                # Must not wait: of several that come here the first makes the file and then reads it for ever.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
    if is_at(descriptor, path) and _header(descriptor) is None:
        _make(descriptor, path, make)
    with _errors():
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        header = _header(descriptor)
        if header is None or not is_at(descriptor, path):
            return None
        # Not a private mapping: the system would want memory for what could be written to it.
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    weakref.finalize(mapped, _release, descriptor, path, os.getpid())
    return {name: _array(mapped, *place) for name, place in header["arrays"].items()}


def _make(descriptor: int, path: Path, make: Callable[[Room], None]) -> None:
    delete_leftovers(but=path)
    try:
        with _errors():
            os.ftruncate(descriptor, 0)
            room = Room(descriptor)
            make(room)
            room.close()
        pa.default_memory_pool().release_unused()  # what reading took, which this process alone would keep
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _array(mapped: mmap.mmap, kind: str, shape: list[int], start: int) -> NDArray[Any]:
    num = math.prod(shape)
    if not num:
        return np.zeros(shape, kind)
    return np.frombuffer(mapped, kind, num, start).reshape(shape)


def _header(descriptor: int) -> dict[str, Any] | None:
    """What the file holds, or None where it is not whole."""
    try:
        header = json.loads(os.pread(descriptor, HEADER_BYTES, 0))
    except ValueError:
        return None
    is_whole = header["format"] == FORMAT and header["num_bytes"] == os.fstat(descriptor).st_size
    return dict(header) if is_whole else None


def _release(descriptor: int, path: Path, process: int) -> None:
    """Give up a file, and delete it where nobody else reads it."""
    if process == os.getpid():  # what a process forked off shares its lock
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(descriptor, path):
                path.unlink()
    os.close(descriptor)


@contextlib.contextmanager
def _errors(num_bytes: int = 0) -> Iterator[None]:
    size = f"{num_bytes / 1e9:.1f} GB of " if num_bytes else ""
    with temporary_errors(f"{size}tables that the processes of this machine share"):
        yield
