"""The stages' workers in this process instead of Ray's; what is sent to a worker is pickled as Ray would."""

import contextlib
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from sracl_dist import cluster as cluster_module
from sracl_dist import recommend as recommend_stage
from sracl_dist.cluster import Cluster
from sracl_dist.embed import job as embed_stage
from sracl_dist.embed import workers as embed_workers
from sracl_dist.evaluate import job as evaluate_stage
from sracl_dist.neighbours import job as neighbours_stage


def work_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the patch ends no stage starts Ray."""
    for stage in (embed_stage, evaluate_stage, recommend_stage):
        monkeypatch.setattr(stage, "connected", connected)
    for module in (embed_workers, evaluate_stage, recommend_stage):
        monkeypatch.setattr(module, "map_shards", map_shards)
    monkeypatch.setattr(cluster_module, "cpus_of_nodes", lambda: [2])
    monkeypatch.setattr(neighbours_stage, "connected", connected)
    monkeypatch.setattr(neighbours_stage, "broadcast_shards", broadcast_shards)


@contextlib.contextmanager
def connected(*_: object) -> Iterator[Cluster]:
    yield Cluster(num_gpus=0, is_local=True)


def sent(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def map_shards(
    make: Callable[..., Callable[[Any], Any]],
    arguments: tuple[Any, ...],
    shards: Sequence[Any],
    on_result: Callable[[Any, Any], None],
    **_: object,
) -> None:
    process = make(*sent(arguments))
    for shard in shards:
        on_result(shard, process(shard))


@contextlib.contextmanager
def broadcast_shards(
    make: Callable[..., Callable[[Any], Any]], arguments: Sequence[tuple[Any, ...]], **_: object
) -> Iterator[Callable[[Any], list[Any]]]:
    workers = [make(*sent(own)) for own in arguments]
    yield lambda shard: [worker(shard) for worker in workers]
