"""Ends the processes of a private cluster that outlive its program, however that ended.

Most of Ray's processes end with the program, even where it is killed, but those that were just starting then wait a
minute for a server that is gone. A program of its own watches for the end, since a killed one can do nothing any more.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from sracl_dist.environment import environment
from sracl_dist.temporary import delete_leftovers

GRACE_S = 5.0
"""How long processes may take to end by themselves, which leaves less behind."""
POLL_S = 0.2
MARK = "SRACL_CLUSTER"
"""Environment variable by which the processes of one cluster are known."""
TRACKER = b"multiprocessing.resource_tracker"
"""A process that deletes shared memory once those are gone who used it, and then ends."""


@contextlib.contextmanager
def reaped() -> Iterator[str]:
    """See to it that processes started within the block end soon after it, or after this process; yields their mark."""
    mark = uuid.uuid4().hex
    command = [sys.executable, "-m", "sracl_dist.reaper", mark]
    # In a session of its own, so that Ctrl-C at the terminal does not end it first.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert process.stdin is not None  # noqa: S101 - for the type checker
    try:
        with environment({MARK: mark}):
            yield mark
    finally:
        process.stdin.close()


def main(mark: str) -> None:
    """Wait for the program's end, and then end what is left of it."""
    sys.stdin.buffer.read()
    deadline = time.monotonic() + GRACE_S
    while left := processes_of(mark):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    time.sleep(POLL_S)  # a lock may be there a moment longer than its process
    delete_leftovers()


def processes_of(mark: str) -> list[int]:
    """Processes of the cluster, without those that only wait for the others."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it is another user's, or has ended
            is_marked = f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0")
            if is_marked and TRACKER not in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
