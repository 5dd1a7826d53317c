"""The Ray cluster: connecting to it, and spreading shards of work over worker processes."""

import contextlib
import logging
import os
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


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[Cluster]:
    """Connect to the configured cluster, or start a private one, for the duration of the block.

    A process that is connected already, such as a notebook's, stays with its cluster. A bare `ray.init()` would attach
    to whatever cluster last started on the machine, so an address is always given.

    Raises:
        SetupError: the cluster cannot be reached or started.
    """
    if ray.is_initialized():
        yield _describe()
        return
    address = config.address or os.environ.get("RAY_ADDRESS") or "local"
    private: dict[str, Any] = {}
    if address == "local":
        num_cpus = config.num_cpus or len(os.sched_getaffinity(0))
        private = {
            "num_cpus": num_cpus,
            "object_store_memory": config.object_store_bytes,
            "include_dashboard": False,
        }
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **private)
    except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
        reason = str(error).splitlines()[0]
        raise SetupError(f"The Ray cluster {address} cannot be used ({reason}); check cluster.address.") from None
    try:
        yield _describe()
    finally:
        ray.shutdown()


def _describe() -> Cluster:
    resources = ray.cluster_resources()
    return Cluster(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


class _Worker:
    """Builds what it needs at its first shard, then processes shards.

    Building in the constructor would turn its errors into the death of the actor, which Ray reports without the cause.
    """

    def __init__(self, make: Callable[..., Callable[[Any], Any]], arguments: tuple[Any, ...]) -> None:
        self._make, self._arguments = make, arguments
        self._process: Callable[[Any], Any] | None = None

    def process(self, shard: Any) -> Any:
        if self._process is None:
            self._process = self._make(*self._arguments)
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
    actor = _worker_class(cpus_per_worker, gpus_per_worker)
    workers: list[Any] = [actor.remote(make, arguments) for _ in range(num_workers)]
    try:
        _feed(workers, shards, on_result)
    finally:
        for worker in workers:
            ray.kill(worker)


@contextlib.contextmanager
def broadcast_shards(
    make: Callable[..., Callable[[Shard], Any]],
    arguments: Sequence[tuple[Any, ...]],
    *,
    cpus_per_worker: int = 1,
    gpus_per_worker: int = 0,
) -> Iterator[Callable[[Shard], list[Any]]]:
    """One worker per tuple of arguments, each holding a part of something; yields a function that asks all of them.

    The function returns the workers' results in the order of `arguments`. Errors are as for `map_shards`.
    """
    _require_room(len(arguments), cpus_per_worker, gpus_per_worker)
    actor = _worker_class(cpus_per_worker, gpus_per_worker)
    workers: list[Any] = [actor.remote(make, own) for own in arguments]

    def ask(shard: Shard) -> list[Any]:
        shared = ray.put(shard)
        with unwrapped_errors():
            results: list[Any] = ray.get([worker.process.remote(shared) for worker in workers])
        return results

    try:
        yield ask
    finally:
        for worker in workers:
            ray.kill(worker)


def _worker_class(cpus: int, gpus: int) -> Any:
    return ray.remote(_Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=3, max_task_retries=3)


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
