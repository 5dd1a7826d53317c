"""Shards over real worker processes of one private Ray cluster: results, errors, and a worker that is killed."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from sracl_dist.cluster import Cluster, connected, map_shards
from sracl_dist.config.sections import ClusterConfig
from sracl_dist.environment import environment
from sracl_dist.errors import InputError, SetupError, StageError

pytestmark = pytest.mark.ray

Results = list[tuple[int, int]]
DASHBOARD = "http://127.0.0.1:8265"
"""As RAY_ADDRESS is set for `ray job submit`; a private cluster has nothing to do with it."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    config = ClusterConfig(address="local", num_cpus=2, object_store_bytes=80_000_000)
    with environment({"RAY_ADDRESS": DASHBOARD}), connected(config) as cluster:
        yield cluster


def make_square(offset: int) -> Callable[[int], int]:
    return lambda shard: shard * shard + offset


def make_refusing(bad_shard: int) -> Callable[[int], int]:
    def process(shard: int) -> int:
        if shard == bad_shard:
            raise InputError(f"shard {shard} has no rows; give it some.")
        return shard

    return process


def make_unable() -> Callable[[int], int]:
    raise SetupError("the model is not there; fetch it.")


def make_dying(marks: str, bad_shard: int, num_deaths: int) -> Callable[[int], int]:
    """Kill the worker in the middle of one shard, `num_deaths` times; marks on disk outlive it."""

    def process(shard: int) -> int:
        deaths = len(list(Path(marks).glob("death-*")))
        if shard == bad_shard and deaths < num_deaths:
            (Path(marks) / f"death-{deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return shard * 10

    return process


def collect(
    make: Callable[..., Callable[[int], int]], arguments: tuple[object, ...], num: int, num_workers: int = 2
) -> Results:
    results: Results = []
    map_shards(
        make, arguments, range(num), lambda shard, result: results.append((shard, result)), num_workers=num_workers
    )
    return sorted(results)


def test_the_cluster_says_what_it_has(cluster: Cluster) -> None:
    assert cluster.num_cpus == 2


def make_reading_address() -> Callable[[int], int]:
    return lambda _: int(DASHBOARD in os.environ.get("RAY_ADDRESS", ""))


def test_libraries_that_start_ray_again_stay_with_the_cluster(cluster: Cluster) -> None:
    before = ray.get_runtime_context().gcs_address
    ray.init(ignore_reinit_error=True)
    assert ray.get_runtime_context().gcs_address == before
    assert collect(make_reading_address, (), 1) == [(0, 0)]


@pytest.mark.parametrize(("num", "num_workers"), [(0, 2), (1, 2), (2, 2), (25, 2), (25, 1)])
def test_every_shard_is_done_once(cluster: Cluster, num: int, num_workers: int) -> None:
    assert collect(make_square, (3,), num, num_workers) == [(shard, shard * shard + 3) for shard in range(num)]


def test_results_come_while_other_shards_are_still_running(cluster: Cluster) -> None:
    seen: list[int] = []

    def stop_early(shard: int, result: int) -> None:
        seen.append(shard)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_shards(make_square, (0,), range(1000), stop_early, num_workers=1)
    assert len(seen) == 2


def test_what_a_worker_raises_is_raised_here_as_itself(cluster: Cluster) -> None:
    with pytest.raises(InputError) as caught:
        collect(make_refusing, (7,), 20)
    assert str(caught.value) == "shard 7 has no rows; give it some."


def test_a_worker_that_cannot_be_made_says_why(cluster: Cluster) -> None:
    with pytest.raises(SetupError) as caught:
        collect(make_unable, (), 3)
    assert str(caught.value) == "the model is not there; fetch it."


def test_a_bug_in_a_worker_keeps_its_trace(cluster: Cluster) -> None:
    with pytest.raises(ZeroDivisionError, match="in process"):
        collect(lambda: lambda shard: 1 // shard, (), 3)


def test_a_killed_worker_is_replaced_and_nothing_is_lost_or_doubled(cluster: Cluster, tmp_path: Path) -> None:
    assert collect(make_dying, (str(tmp_path), 5, 1), 12) == [(shard, shard * 10) for shard in range(12)]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_worker_that_keeps_dying_is_given_up_in_one_sentence(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(StageError) as caught:
        collect(make_dying, (str(tmp_path), 1, 99), 3, num_workers=1)
    message = str(caught.value)
    assert message.startswith("A worker process died again and again (")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("num_workers", "cpus", "gpus", "room"),
    [
        (3, 1, 0, "2 workers with 1 CPU"),
        (1, 3, 0, "0 workers with 3 CPU"),
        (1, 1, 1000, "0 workers with 1 CPU and 1000 G"),
    ],
)
def test_more_than_the_cluster_has_is_refused(
    cluster: Cluster, num_workers: int, cpus: int, gpus: int, room: str
) -> None:
    with pytest.raises(SetupError, match=rf"workers is {num_workers} and the cluster has room for {room}"):
        map_shards(
            make_square,
            (0,),
            range(5),
            lambda shard, result: None,
            num_workers=num_workers,
            cpus_per_worker=cpus,
            gpus_per_worker=gpus,
        )


def test_nodes_that_do_not_come_are_waited_for_and_then_refused(cluster: Cluster) -> None:
    with (
        connected(ClusterConfig(wait_s=0.5)),
        pytest.raises(SetupError, match=r"room for 2 workers with 1 CPU each after 0\.5s of waiting"),
    ):
        collect(make_square, (0,), 5, num_workers=3)


def test_where_no_node_has_cpus_the_size_of_those_that_come_counts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, large, small = ({"Alive": True, "Resources": {"CPU": cpus}} for cpus in (0.0, 16.0, 12.0))
    looks = iter([[head]] * 6)
    monkeypatch.setattr(ray, "nodes", lambda: next(looks, [head, large, small]))
    with connected(ClusterConfig(wait_s=60)) as described:
        assert described.num_cpus == 0
        assert described.cpus_for_each(3) == 6
        assert described.num_cpus == 28
    monkeypatch.setattr(ray, "nodes", lambda: [head])
    with connected(ClusterConfig()) as described, pytest.raises(SetupError, match="room for 0 workers with 1 CPU each"):
        described.cpus_for_each(3)


def test_workers_of_one_cpu_take_all_that_are_there_when_the_first_node_has_come(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.num_single_workers() == 2
    head, large, small = ({"Alive": True, "Resources": {"CPU": cpus}} for cpus in (0.0, 16.0, 12.0))
    looks = iter([[head]] * 6)
    monkeypatch.setattr(ray, "nodes", lambda: next(looks, [head, large, small]))
    with connected(ClusterConfig(wait_s=60)) as described:
        assert described.num_single_workers() == 28


@pytest.mark.parametrize(("use_gpus", "num_gpus"), [(None, 0), (True, 1), (False, 0)])
def test_gpus_that_are_not_there_yet_count_where_the_setting_says_so(
    cluster: Cluster, use_gpus: bool | None, num_gpus: int
) -> None:
    with connected(ClusterConfig(use_gpus=use_gpus)) as described:
        assert described.num_gpus == num_gpus


def make_slow(pause_s: float) -> Callable[[int], int]:
    def process(shard: int) -> int:
        time.sleep(pause_s)
        return shard

    return process


@pytest.mark.parametrize("has_room", [True, False])
def test_while_nothing_comes_it_is_looked_whether_there_is_room(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, has_room: bool
) -> None:
    looks: list[object] = []

    def look(*wanted: object) -> None:
        looks.append(wanted)
        if len(looks) > 1 and not has_room:
            raise SetupError("a node is lost.")

    monkeypatch.setattr("sracl_dist.cluster.require_room", look)
    monkeypatch.setattr("sracl_dist.cluster.ROOM_CHECK_S", 0.1)
    if has_room:
        assert collect(make_slow, (0.5,), 3) == [(0, 0), (1, 1), (2, 2)]
    else:
        with pytest.raises(SetupError, match="a node is lost"):
            collect(make_slow, (60.0,), 3)
    assert looks[:2] == [(2, 1, 0)] * 2
