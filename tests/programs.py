"""Programs that tests start and kill, and what these leave on the machine."""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from sracl_dist.reaper import processes_of

JOBS = Path(__file__).parent.parent / "jobs"
FOLDER = f"sracl-{os.getuid()}"
"""Where programs keep temporary files, within the folder that TMPDIR names."""
SHARED_MEMORY = Path("/dev/shm")
GONE_S = 30.0
"""How long the processes of a program that has ended may take to end too; other tests keep the machine busy."""


class Programs:
    """Starts programs whose temporary files lie in a folder of the test's own, and knows all that they start."""

    def __init__(self, place: Path) -> None:
        self.place, self._mark = place, f"SRACL_TEST_MARK={uuid.uuid4().hex}"

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        name, value = self._mark.split("=")
        own = {name: value, "TMPDIR": str(self.place)}
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | own
        return subprocess.Popen([sys.executable, *command], env=environment, text=True, **options)

    def pipeline(self, config: Path, *overrides: str) -> subprocess.Popen[str]:
        """A pipeline that leads a group of processes, as one does that a person starts at a terminal."""
        command = (str(JOBS / "pipeline.py"), "--config", str(config), *overrides)
        return self.start(*command, stderr=subprocess.PIPE, start_new_session=True)

    def processes(self, folder: Path | None = None) -> set[psutil.Process]:
        """All that programs have started, or those of them with files open in a folder."""
        found = set()
        # Those of Ray that change their title write over their environment, but have log files open.
        open_files = set(processes_of(str(folder or self.place)))
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, psutil.Error):
                is_marked = folder is None and self._mark.encode() in (place / "environ").read_bytes()
                if is_marked or int(place.name) in open_files:
                    found.add(psutil.Process(int(place.name)))
        return {process for process in found if name_of(process)}

    def wait_until_gone(self, which: Path | set[psutil.Process] | None = None) -> None:
        """Until there are none any more: of these, of those with files open in a folder, or of all."""
        deadline = time.monotonic() + GONE_S
        while left := self._left(which):
            assert time.monotonic() < deadline, f"still running: {[name_of(process) for process in left]}"
            time.sleep(0.2)

    def _left(self, which: Path | set[psutil.Process] | None) -> set[psutil.Process]:
        if isinstance(which, set):
            return {process for process in which if process.is_running() and name_of(process)}
        return self.processes(which)

    def files(self) -> set[Path]:
        """What lies in the folder for temporary files, but for the one that all programs of the user share."""
        return {*self.place.iterdir(), *(self.place / FOLDER).glob("*")} - {self.place / FOLDER}

    def shared_memory(self) -> set[Path]:
        """Named objects in shared memory that the processes use."""
        inodes = set()  # and not names, of which a semaphore has another when it is mapped
        for process in self.processes():
            with suppress(OSError):
                maps = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
                inodes |= {int(line.split()[4]) for line in maps if f" {SHARED_MEMORY}/" in line}
        return {Path(own) for own in os.scandir(SHARED_MEMORY) if own.inode() in inodes}

    def stop(self) -> None:
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


@contextmanager
def programs_in_own_folder() -> Iterator[Programs]:
    """Ends what is left of them at the end; the path of the folder is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as place:
        programs = Programs(Path(place))
        try:
            yield programs
        finally:
            programs.stop()


def name_of(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return ""
