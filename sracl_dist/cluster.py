"""The Ray cluster: connecting to it, and spreading shards of work over worker processes."""

import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from sracl_dist.config.sections import ClusterConfig
from sracl_dist.errors import SetupError, SraclError, StageError

SHARDS_IN_FLIGHT_PER_WORKER = 2

Shard = TypeVar("Shard")


@dataclass(frozen=True)
class Cluster:
    """What the connected cluster offers."""

    num_cpus: int
    num_gpus: int
    is_private: bool
    """Whether this process started it, so that all its nodes are this machine."""


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[Cluster]:
    """Connect to the configured cluster, or start a private one, for the duration of the block.

    A bare `ray.init()` would attach to whatever cluster last started on the machine, so an address is always given.

    Raises:
        SetupError: the cluster cannot be reached or started.
    """
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    private: dict[str, Any] = {}
    if address == "local":
        num_cpus = config.num_cpus or len(os.sched_getaffinity(0))
        private = {
            "num_cpus": num_cpus,
            "object_store_memory": config.object_store_bytes,
            "include_dashboard": False,
        }
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **private)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        reason = str(error).splitlines()[0]
        raise SetupError(f"The Ray cluster {address} cannot be used ({reason}); check cluster.address.") from None
    try:
        resources = ray.cluster_resources()
        yield Cluster(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)), address == "local")
    finally:
        ray.shutdown()


class _Worker:
    """Builds what it needs once, then processes shards."""

    def __init__(self, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
        self._process = make(*arguments)

    def process(self, shard: Any) -> Any:
        return self._process(shard)


def map_shards(
    make: Callable[..., Callable[[Shard], Any]],
    arguments: tuple[Any, ...],
    shards: Sequence[Shard],
    on_result: Callable[[Shard, Any], None],
    *,
    num_workers: int,
    cpus_per_worker: int = 1,
    gpus_per_worker: int = 0,
) -> None:
    """Process every shard on one of `num_workers` processes; `on_result(shard, result)` runs here as they finish.

    `make(*arguments)` runs once in each worker and returns the function from shard to result. A worker that dies is
    replaced and its shards are done again, three times at most.

    Raises:
        SraclError: what a worker raised.
        SetupError: the cluster is too small for the workers.
        StageError: workers keep dying.
    """
    if not shards:
        return
    num_workers = min(num_workers, len(shards))
    _require_room(num_workers, cpus_per_worker, gpus_per_worker)
    actor = ray.remote(_Worker).options(
        num_cpus=cpus_per_worker, num_gpus=gpus_per_worker, max_restarts=3, max_task_retries=3
    )
    workers: list[Any] = [actor.remote(make, arguments) for _ in range(num_workers)]
    try:
        _feed(workers, shards, on_result)
    finally:
        for worker in workers:
            ray.kill(worker)


def _feed(workers: list[Any], shards: Sequence[Any], on_result: Callable[[Any, Any], None]) -> None:
    waiting = deque(shards)
    running: dict[ray.ObjectRef, tuple[Any, Any]] = {}

    def submit(worker: Any) -> None:
        if waiting:
            shard = waiting.popleft()
            running[worker.process.remote(shard)] = (worker, shard)

    for _ in range(SHARDS_IN_FLIGHT_PER_WORKER):
        for worker in workers:
            submit(worker)
    while running:
        finished, _ = ray.wait(list(running), num_returns=1)
        worker, shard = running.pop(finished[0])
        with unwrapped_errors():
            result = ray.get(finished[0])
        submit(worker)
        on_result(shard, result)


@contextlib.contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise what a worker raised as itself, so that its one sentence reaches the person."""
    try:
        yield
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, SraclError):
            raise cause from None
        raise
    except RayActorError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, RayTaskError) and isinstance(cause.cause, SraclError):
            raise cause.cause from None
        reason = str(error).strip().splitlines()[0]
        raise StageError(f"A worker process died again and again ({reason}); see its log, memory first.") from error


def _require_room(num_workers: int, cpus: int, gpus: int) -> None:
    """Refuse what could never be scheduled; Ray itself would wait for ever."""
    resources = ray.cluster_resources()
    for name, wanted in (("CPU", num_workers * cpus), ("GPU", num_workers * gpus)):
        there = resources.get(name, 0)
        if wanted > there:
            raise SetupError(
                f"{num_workers} workers need {wanted} {name}s and the cluster has {there:g}; "
                f"use fewer workers or a larger cluster."
            )


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and notices out of a job's output; their warnings and errors stay."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if not sys.warnoptions:
        logging.getLogger("ray").setLevel(logging.ERROR)
