"""Waiting for nodes, with the cluster's list of nodes and its autoscaler replaced."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from ray.exceptions import RaySystemError

from sracl_dist import room
from sracl_dist.errors import SetupError, StageError
from sracl_dist.room import require_room, waiting_for_nodes

Asked = list[list[dict[str, float]]]


class Autoscaler:
    """Starts one node at every look, from the moment in which it is asked, up to the most that it may."""

    def __init__(self, num_nodes: int, most: int) -> None:
        self.num_nodes, self.most = num_nodes, most
        self.asked: Asked = []

    def request(self, bundles: list[dict[str, float]]) -> None:
        self.asked.append(bundles)

    def nodes(self) -> list[dict[str, Any]]:
        if self.asked:
            self.num_nodes = min(self.num_nodes + 1, self.most)
        alive = [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 1.0}}] * self.num_nodes
        return [*alive, {"Alive": False, "Resources": {"CPU": 100.0, "GPU": 100.0}}]


@pytest.fixture
def autoscaler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Autoscaler]:
    autoscaler = Autoscaler(num_nodes=0, most=5)
    monkeypatch.setattr(room, "request_resources", autoscaler.request)
    monkeypatch.setattr(room.ray, "nodes", autoscaler.nodes)
    monkeypatch.setattr(room, "POLL_S", 0.01)
    return autoscaler


def test_nodes_are_asked_for_waited_for_and_given_back(autoscaler: Autoscaler, capsys: Any) -> None:
    with waiting_for_nodes(60):
        require_room(4, 1, 1)
        num_asked = len(autoscaler.asked)
        assert autoscaler.asked == [[{"CPU": 1, "GPU": 1}] * 4] * num_asked
        require_room(3, 1, 1)
        assert len(autoscaler.asked) == num_asked, "they are there"
    assert autoscaler.asked[num_asked:] == [[]]
    assert "asking for nodes with room for 4 workers with 1 CPU and 1 GPU each" in capsys.readouterr().err


def test_what_another_job_takes_back_is_asked_for_again(
    autoscaler: Autoscaler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forget_the_first(bundles: list[dict[str, float]]) -> None:
        autoscaler.request(bundles)
        autoscaler.most = 0 if len(autoscaler.asked) == 1 else 5

    monkeypatch.setattr(room, "request_resources", forget_the_first)
    with waiting_for_nodes(60):
        require_room(4, 1, 1)
    assert autoscaler.num_nodes >= 4


def test_nodes_that_a_killed_job_asked_for_are_given_back_by_the_next(autoscaler: Autoscaler) -> None:
    autoscaler.num_nodes = 5
    with waiting_for_nodes(60):
        require_room(5, 1, 1)
    assert autoscaler.asked == [[]]


def test_what_the_autoscaler_cannot_start_is_refused_after_the_wait(autoscaler: Autoscaler) -> None:
    with waiting_for_nodes(0.2), pytest.raises(SetupError) as caught:
        require_room(9, 0, 1, "train.num_workers")
    assert str(caught.value) == (
        "train.num_workers is 9 and the cluster has room for 5 workers with 1 GPU each after 0.2s of waiting "
        "(cluster.wait_s); use fewer or smaller workers, or a larger cluster."
    )
    assert autoscaler.asked[-1] == []


@pytest.mark.parametrize("around", [contextlib.nullcontext(), waiting_for_nodes(0)])
def test_a_cluster_of_fixed_size_refuses_at_once(
    autoscaler: Autoscaler, around: contextlib.AbstractContextManager[None]
) -> None:
    autoscaler.num_nodes = 2
    with pytest.raises(SetupError, match=r"has room for 4 workers with 1 CPU each; use fewer"), around:
        require_room(5, 1, 0)
    assert autoscaler.asked == []


def test_a_lost_cluster_does_not_hide_what_happened(autoscaler: Autoscaler, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(bundles: list[dict[str, float]]) -> None:
        if not bundles:
            raise RaySystemError("the head is gone")
        autoscaler.request(bundles)

    monkeypatch.setattr(room, "request_resources", refuse)

    def work() -> None:
        with waiting_for_nodes(60):
            require_room(1, 1, 1)
            raise StageError("what happened")

    with pytest.raises(StageError, match="what happened"):
        work()
