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
    resident = _resident()
    return sum(resident[process][1] for process in _family(root, resident))


@dataclass(kw_only=True)
class Peaks:
    """Largest memory of a program's own process and of the largest other one of its kind, in bytes."""

    driver: int = 0
    driver_private: int = 0
    """Without the pages of files, which other processes share."""
    worker: int = 0
    worker_private: int = 0

    def look(self, root: int) -> None:
        """Take in what the program and the workers of Ray among its descendants have now."""
        resident = _resident()
        for process in _family(root, resident):
            with contextlib.suppress(OSError):
                private = _private_bytes(process)
                if process == root:
                    self.driver = max(self.driver, resident[process][1])
                    self.driver_private = max(self.driver_private, private)
                elif (PROC / str(process) / "cmdline").read_bytes().startswith(b"ray::"):
                    self.worker = max(self.worker, resident[process][1])
                    self.worker_private = max(self.worker_private, private)


def _resident() -> dict[int, tuple[int, int]]:
    """Parent and resident memory of every process of the machine."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                # The command stands in parentheses and may hold anything; behind it come state and parent.
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(folder.name)] = parent, int((folder / "statm").read_text().split()[1]) * _PAGE_BYTES
    return found


def _family(root: int, resident: dict[int, tuple[int, int]]) -> list[int]:
    children = defaultdict(list)
    for process, (parent, _) in resident.items():
        children[parent].append(process)
    family, waiting = [], [root]
    while waiting:
        process = waiting.pop()
        family += [process] if process in resident else []
        waiting += children[process]
    return family


def _private_bytes(process: int) -> int:
    lines = (PROC / str(process) / "status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


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
