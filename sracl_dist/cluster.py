"""The Ray cluster: connecting to it, and spreading shards of work over worker processes."""

import contextlib
import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from sracl_dist.cluster_address import cluster_address
from sracl_dist.config.sections import ClusterConfig
from sracl_dist.environment import environment
from sracl_dist.errors import SetupError, SraclError, StageError, first_line
from sracl_dist.private_cluster import private_cluster
from sracl_dist.room import require_room, waiting_for_nodes
from sracl_dist.visible import is_utf8

SHARDS_IN_FLIGHT_PER_WORKER = 2
ROOM_CHECK_S = 30.0
"""After so long without a result it is looked whether a lost node has left too little room for the workers."""

CLIENT_WAIT = "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S"
"""Ray tries a ray:// address three times for so long, or half a minute where it is not set."""

Shard = TypeVar("Shard")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the connected cluster offers."""

    num_gpus: int
    """At least 1 where `cluster.use_gpus` says that there will be some, and 0 where it says that none is used."""
    is_local: bool
    """Whether this process started it, so that its only node is this machine."""

    @property
    def num_cpus(self) -> int:
        """CPUs of the nodes that are there at the moment."""
        return sum(cpus_of_nodes())

    def num_single_workers(self) -> int:
        """How many workers with one CPU each the nodes have room for, at least 1.

        Where no node has a CPU for work yet, this waits for one that has, and all CPUs count that are there then.

        Raises:
            SetupError: no such node has come.
        """
        return max(1, sum(_cpus_to_use(1)))

    def cpus_for_each(self, num_workers: int) -> int:
        """CPUs of a worker when `num_workers` share the nodes evenly; no worker can span two nodes.

        Where no node has a CPU for work yet, this waits for nodes with room for the workers, to see how large they are.

        Raises:
            SetupError: no such node has come.
        """
        cpus = _cpus_to_use(num_workers)
        workers_per_node = math.ceil(num_workers / max(1, len(cpus)))
        return max(1, min(cpus, default=1) // workers_per_node)


def _cpus_to_use(num_workers: int) -> list[int]:
    """CPUs of every node that has some; where none has, nodes with room for the workers are waited for."""
    if not cpus_of_nodes():
        require_room(num_workers, 1, 0)
    return cpus_of_nodes()


def cpus_of_nodes() -> list[int]:
    """CPUs of every node that has some for work."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]


@contextlib.contextmanager
def connected(config: ClusterConfig) -> Iterator[Cluster]:
    """Connect to the configured cluster, or start a private one, for the duration of the block.

    A process that is connected already, such as a notebook's, stays with its cluster. A bare `ray.init()` would attach
    to whatever cluster last started on the machine, so an address is always given.

    Raises:
        SetupError: the cluster cannot be reached or started.
    """
    if ray.is_initialized():
        with environment({"RAY_ADDRESS": ""}), waiting_for_nodes(config.wait_s):
            yield _describe(config, is_local=False)
        return
    _require_readable_folder()
    address = cluster_address(config)
    is_local = address == "local"
    with contextlib.ExitStack() as around:
        private = around.enter_context(private_cluster(config)) if is_local else {}
        # Ray's own libraries call `ray.init` again, which would turn to the address there, whatever is connected.
        around.enter_context(environment({"RAY_ADDRESS": "", CLIENT_WAIT: os.environ.get(CLIENT_WAIT, "5")}))
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **private)
        except (ConnectionError, RuntimeError, ValueError, OSError, RayError) as error:
            reason = first_line(error)
            raise SetupError(f"The Ray cluster {address} cannot be used ({reason}); check cluster.address.") from None
        around.callback(ray.shutdown)
        with waiting_for_nodes(config.wait_s):
            yield _describe(config, is_local=is_local)


def _require_readable_folder() -> None:
    """Refuse to start in a folder that Ray cannot name to its workers."""
    if not is_utf8(os.getcwd()):
        raise SetupError(
            f"Ray cannot work in the folder {os.getcwd()}, whose name is not UTF-8; start from another one."
        )


def _describe(config: ClusterConfig, *, is_local: bool) -> Cluster:
    gpus = int(sum(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]))
    return Cluster(num_gpus={None: gpus, True: max(1, gpus), False: 0}[config.use_gpus], is_local=is_local)


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
    require_room(num_workers, cpus_per_worker, gpus_per_worker)
    actor = _worker_class(cpus_per_worker, gpus_per_worker)
    workers: list[Any] = [actor.remote(make, arguments) for _ in range(num_workers)]
    try:
        _feed(workers, shards, on_result, lambda: require_room(num_workers, cpus_per_worker, gpus_per_worker))
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
    require_room(len(arguments), cpus_per_worker, gpus_per_worker)
    actor = _worker_class(cpus_per_worker, gpus_per_worker)
    workers: list[Any] = [actor.remote(make, own) for own in arguments]

    def ask(shard: Shard) -> list[Any]:
        shared = ray.put(shard)
        answers = [worker.process.remote(shared) for worker in workers]
        _wait(answers, len(answers), lambda: require_room(len(arguments), cpus_per_worker, gpus_per_worker))
        with unwrapped_errors():
            results: list[Any] = ray.get(answers)
        return results

    try:
        yield ask
    finally:
        for worker in workers:
            ray.kill(worker)


def _worker_class(cpus: int, gpus: int) -> Any:
    # Retries without a limit: until Ray finds out that a lost node's worker is dead, more of them fail than one would
    # allow. What bounds the work on a shard that kills its worker are the restarts.
    return ray.remote(_Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=3, max_task_retries=-1)


def _wait(running: Sequence[ray.ObjectRef], num: int, check_room: Callable[[], None]) -> list[ray.ObjectRef]:
    """Wait for `num` results. Work of a lost node is done again elsewhere, and where there is no room, never."""
    while True:
        finished, _ = ray.wait(list(running), num_returns=num, timeout=ROOM_CHECK_S)
        if len(finished) == num:
            return list(finished)
        check_room()


def _feed(
    workers: list[Any],
    shards: Sequence[Any],
    on_result: Callable[[Any, Any], None],
    check_room: Callable[[], None],
) -> None:
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
        (finished,) = _wait(list(running), 1, check_room)
        worker, shard = running.pop(finished)
        with unwrapped_errors():
            result = ray.get(finished)
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
        raise StageError(
            f"A worker process died again and again ({first_line(error)}); look at the memory of its machine "
            f"first. Its log stays where Ray was started by itself and is named in cluster.address."
        ) from error
