"""What the machine itself can do: time, matrix products and memory.

M rows, D width, C columns.
"""

import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch

BYTES_PER_GB = 1e9
STATUS = Path("/proc/self/status")
"""Where Linux tells the largest memory of a process."""
SCHEDULE = Path("/proc/self/schedstat")
"""Where Linux tells for how many nanoseconds the first thread has run, and how many it was ready but had to wait."""


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long the work takes, with all that it has asked of the device."""
    _wait_for(device)
    started = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - started


def matrix_gflops(width: int, device: torch.device, times: int = 3) -> float:
    """Rate of the product of two square float32 matrices: what this machine reaches at most. The best of some times."""
    return product_gflops(width, width, width, device, times)


def product_gflops(num_rows: int, inner: int, num_columns: int, device: torch.device, times: int = 3) -> float:
    """Rate of the product M x D by D x C in float32, in units of 10^9 operations per second. The best of some times."""
    left_MD = torch.randn(num_rows, inner, device=device)
    right_CD = torch.randn(num_columns, inner, device=device)
    product_MC = torch.empty(num_rows, num_columns, device=device)
    work = lambda: torch.mm(left_MD, right_CD.T, out=product_MC)  # noqa: E731
    work()
    fastest_s = min(seconds(work, device) for _ in range(times))
    return 2 * num_rows * inner * num_columns / fastest_s / 1e9


def peak_rss_gb() -> float:
    """Largest resident memory that this process has had, in units of 10^9 bytes."""
    if STATUS.exists():
        # Unlike what getrusage tells, this starts anew in a new program and is not the parent's.
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / BYTES_PER_GB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / BYTES_PER_GB


def waited_s() -> float:
    """Seconds for which this process was ready but other work had the processor; 0 where the system does not tell."""
    return int(SCHEDULE.read_text().split()[1]) / 1e9 if SCHEDULE.exists() else 0.0


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
