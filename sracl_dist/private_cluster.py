"""What a cluster gets that a program starts for itself: addresses of loopback only, and a folder that goes with it."""

import contextlib
import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray._common.network_utils import get_localhost_ip
from ray._private import ray_constants

from sracl_dist.config.sections import ClusterConfig
from sracl_dist.environment import environment
from sracl_dist.profiles.orphan_guard import WORKERS_LEAD_GROUPS
from sracl_dist.reaper import reaped
from sracl_dist.temporary import own_folder

WORKER_NICENESS = "RAY_worker_niceness"
"""Environment variable of Ray: how far its workers stand back behind other programs, 0 to 19."""
_number = itertools.count(1)
"""Of the clusters that this program has started."""


@contextlib.contextmanager
def private_cluster(config: ClusterConfig) -> Iterator[dict[str, Any]]:
    """Arguments of `ray.init` for a cluster of this program; it must be started and must end within the block."""
    with contextlib.ExitStack() as around:
        folder = around.enter_context(own_folder()) / f"ray-{next(_number)}"
        around.enter_context(_environment())
        around.enter_context(reaped(folder))
        yield {
            "num_cpus": config.num_cpus or usable_cpus(),
            "object_store_memory": config.object_store_bytes,
            "include_dashboard": False,
            "_temp_dir": str(folder),
        }


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Let Ray, and the engines and trainers in its workers, listen on the loopback address alone and leave nothing."""
    # Ray replaces 127.0.0.1 by an address that other machines reach, unless clusters of several nodes are turned off,
    # as they are on other systems by default. It reads the variable for that when it is imported, which has happened.
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    wanted = {
        "VLLM_HOST_IP": get_localhost_ip(),
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        # Ray would kill what a worker has started along with it, and with that the process that deletes the shared
        # memory of an engine. Engines end with their worker by themselves.
        "RAY_kill_child_processes_on_worker_exit": "0",
        WORKERS_LEAD_GROUPS: "0",
        # By default 15: the driver and Ray's own processes then interrupt one thread of an engine, for which all its
        # others wait. On two cores that costs a fifth of its rate.
        WORKER_NICENESS: os.environ.get(WORKER_NICENESS, "0"),
    }
    try:
        with environment(wanted):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def usable_cpus() -> int:
    """Cores this process may use: its affinity, and less where a container's quota says so."""
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            return max(1, min(cores, math.ceil(int(quota) / int(period))))
    return cores
