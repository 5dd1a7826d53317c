"""Room for workers: on the nodes that are there, and on those that an autoscaler starts when it is asked to."""

import contextlib
import contextvars
import time
from collections.abc import Iterator

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from sracl_dist.errors import SetupError
from sracl_dist.observe import Progress, duration, say

POLL_S = 1.0

_wait_s: contextvars.ContextVar[float] = contextvars.ContextVar("wait_s", default=0.0)


@contextlib.contextmanager
def waiting_for_nodes(wait_s: float) -> Iterator[None]:
    """Within the block `require_room` waits so long for nodes, which behind it may end again."""
    before = _wait_s.set(wait_s)
    try:
        yield
    finally:
        _wait_s.reset(before)
        if wait_s:  # also where it was a job killed before this one that asked: its nodes would stay for ever
            with contextlib.suppress(RayError, RuntimeError, OSError):  # a cluster that is gone has no nodes to end
                request_resources(bundles=[])


def require_room(num_workers: int, cpus: float, gpus: int, setting: str = "The number of workers") -> None:
    """Refuse what could never be scheduled, node by node; Ray itself would wait for ever.

    `setting` is the key that the message names. Where nodes are waited for, they are asked for first.

    Raises:
        SetupError: the cluster's nodes cannot hold the workers.
    """
    wanted = _wanted(cpus, gpus)
    wait_s = _wait_s.get()
    if num_workers > _room(wanted) and wait_s:
        _wait(num_workers, wanted, wait_s)
    if num_workers > (room := _room(wanted)):
        waited = f" after {duration(wait_s)} of waiting (cluster.wait_s)" if wait_s else ""
        raise SetupError(
            f"{setting} is {num_workers} and the cluster has room for {room} workers with {_in_words(wanted)} each"
            f"{waited}; use fewer or smaller workers, or a larger cluster."
        )


def room_for(cpus: float, gpus: int) -> int:
    """How many workers the cluster's nodes can hold, whatever else runs there."""
    return _room(_wanted(cpus, gpus))


def _wait(num_workers: int, wanted: dict[str, float], wait_s: float) -> None:
    say(f"cluster: asking for nodes with room for {num_workers} workers with {_in_words(wanted)} each")
    deadline = time.monotonic() + wait_s
    progress = Progress("cluster: room for", num_workers, "workers")
    while (room := _room(wanted)) < num_workers and time.monotonic() < deadline:
        request_resources(bundles=[wanted] * num_workers)  # again and again, as another job's end takes it back
        progress.update(room - progress.done, nodes=len(_nodes()))
        time.sleep(POLL_S)
    progress.update(min(room, num_workers) - progress.done, nodes=len(_nodes()))
    progress.close()


def _wanted(cpus: float, gpus: int) -> dict[str, float]:
    return {name: amount for name, amount in (("CPU", cpus), ("GPU", gpus)) if amount}


def _room(wanted: dict[str, float]) -> int:
    return sum(min(int(node.get(name, 0) // amount) for name, amount in wanted.items()) for node in _nodes())


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _in_words(wanted: dict[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
