"""What there is of a machine's memory, in a container too, and of a GPU's."""

from dataclasses import dataclass
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True, kw_only=True)
class ControlGroup:
    """Where a container's memory is told."""

    limit: Path
    used: Path
    """With pages of files, which the system drops when the container asks for more."""
    statistics: Path
    files: tuple[str, ...]
    """Names of the statistics that count these pages; those of files in memory (tmpfs) are not among them."""

    def rest_bytes(self) -> int | None:
        """What the container could still have; None where nothing limits it."""
        if not (self.limit.exists() and self.used.exists()) or (limit := self.limit.read_text().strip()) == "max":
            return None
        lines = self.statistics.read_text().splitlines() if self.statistics.exists() else []
        of_files = sum(int(value) for name, value in (line.split() for line in lines) if name in self.files)
        return int(limit) - int(self.used.read_text()) + of_files


CGROUPS = (
    ControlGroup(
        limit=Path("/sys/fs/cgroup/memory.max"),
        used=Path("/sys/fs/cgroup/memory.current"),
        statistics=Path("/sys/fs/cgroup/memory.stat"),
        files=("inactive_file", "active_file"),
    ),
    ControlGroup(
        limit=Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        used=Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
        statistics=Path("/sys/fs/cgroup/memory/memory.stat"),
        files=("total_inactive_file", "total_active_file"),
    ),
)
"""The second and the first version of control groups."""


def available_bytes() -> int:
    """What this process could have of the host's memory, with what it has already.

    It is the machine's rest, or less where a container's limit says so. Pages of files count as there for either, so
    of this process those are added that are no file's.
    """
    rests = [group.rest_bytes() for group in CGROUPS]
    rest = min([_kilobytes(MEMINFO, "MemAvailable:"), *(rest for rest in rests if rest is not None)])
    return max(0, rest) + _kilobytes(STATUS, "RssAnon:")


def device_bytes(device: torch.device) -> int | None:
    """What is free on the GPU, with what this process has already; None on a processor."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)


def _kilobytes(path: Path, key: str) -> int:
    """The line's number in bytes; 0 where there is no such line."""
    return sum(int(line.split()[1]) * 1024 for line in path.read_text().splitlines() if line.startswith(key))
