"""Ends the processes of a private cluster that outlive its program, however that ended.

Most of Ray's processes end with the program, even where it is killed, but those that were just starting then wait a
minute for a server that is gone. A program of its own watches for the end, since a killed one can do nothing any more.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sracl_dist.temporary import delete_leftovers

GRACE_S = 5.0
"""How long processes may take to end by themselves, which leaves less behind."""
POLL_S = 0.2
TRACKER = b"multiprocessing.resource_tracker"
"""A process that deletes shared memory once those are gone who used it, and then ends."""


@contextlib.contextmanager
def reaped(folder: Path) -> Iterator[None]:
    """See to it that processes with files open in `folder` end soon after the block, or after this process."""
    # In a session of its own, so that Ctrl-C at the terminal does not end it first.
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "sracl_dist.reaper", str(folder.resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - for the type checker
    try:
        yield
    finally:
        process.stdin.close()


def main(folder: str) -> None:
    """Wait for the program's end, and then end what is left of it."""
    program = os.getppid()
    sys.stdin.buffer.read()
    deadline = time.monotonic() + GRACE_S
    while left := [pid for pid in processes_of(folder) if pid != program]:
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    time.sleep(POLL_S)  # a lock may be there a moment longer than its process
    delete_leftovers()


def processes_of(folder: str) -> list[int]:
    """Processes of the cluster, all of which write logs there, without those that only wait for the others."""
    # Not by a variable of their environment: those that change their title write over it.
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is another user's, or has ended
            if _has_open_file(place, folder) and TRACKER not in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


def _is_written(process: Path, descriptor: str) -> bool:
    """Whether a file is open for writing; who only reads a log is somebody who looks at it."""
    flags = re.search(r"^flags:\s*([0-7]+)", (process / "fdinfo" / descriptor).read_text(), re.MULTILINE)
    return flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _has_open_file(process: Path, folder: str) -> bool:
    for file in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed meanwhile
            if os.readlink(file).startswith(f"{folder}/") and _is_written(process, file.name):
                return True
    return False


if __name__ == "__main__":
    main(sys.argv[1])
