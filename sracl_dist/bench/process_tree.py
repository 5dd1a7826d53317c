"""The memory of a program and of every process that it starts, sampled from outside."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sracl_dist.errors import StageError

PROC = Path("/proc")
INTERVAL_S = 0.1
_BYTES_PER_GB = 1e9
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_LAST_LINES = 5


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a program took."""

    wall_s: float
    peak_rss_gb: float
    """Largest sum over its processes; memory that they share counts once for each."""


def run_measured(arguments: Sequence[str]) -> Measured:
    """Run this Python with the arguments, such as `-m` and a module, and wait for it.

    Raises:
        StageError: it failed; tells the end of what it said.
    """
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        sampler = _Sampler(process.pid)
        _, said = process.communicate()
        wall_s = time.perf_counter() - started
        peak = sampler.stop()
    if process.returncode:
        end = " ".join(said.decode(errors="replace").splitlines()[-_LAST_LINES:])
        raise StageError(f"{' '.join(arguments)} ended with status {process.returncode}: {end}")
    return Measured(wall_s=wall_s, peak_rss_gb=peak / _BYTES_PER_GB)


def tree_rss_bytes(root: int) -> int:
    """Resident memory of a process and its descendants now."""
    children, resident = defaultdict(list), {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # The command stands in parentheses and may hold anything; behind it come state and parent.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children[parent].append(int(folder.name))
                resident[int(folder.name)] = int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        total += resident.get(process, 0)
        waiting += children[process]
    return total


class _Sampler:
    """Looks at the memory again and again while a program runs."""

    def __init__(self, root: int) -> None:
        self._root, self._peak, self._stopped = root, 0, threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._stopped.wait(INTERVAL_S):
            self._peak = max(self._peak, tree_rss_bytes(self._root))

    def stop(self) -> int:
        """End it and return the largest sum."""
        self._stopped.set()
        self._thread.join()
        return self._peak
