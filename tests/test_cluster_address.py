"""Addresses of clusters: what answers there as Ray does, and what is said where nothing or something else does."""

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import ray
from ray.core.generated.gcs_service_pb2 import CheckAliveReply
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceServicer, add_NodeInfoGcsServiceServicer_to_server
from ray_nodes import free_port

import sracl_dist.cluster_address as module
from sracl_dist.cluster import connected
from sracl_dist.cluster_address import cluster_address
from sracl_dist.config.sections import ClusterConfig
from sracl_dist.errors import SetupError

HOST = "127.0.0.2"
"""Loopback too; Ray puts the machine's own address in the place of 127.0.0.1."""
DASHBOARD = "http://127.0.0.1:8265"


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 1.0)
    monkeypatch.setattr(module, "ANSWER_S", 1.0)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


class Head(NodeInfoGcsServiceServicer):
    """Answers what is asked of the head of a cluster."""

    def __init__(self, code: grpc.StatusCode | None = None) -> None:
        self.code = code

    def CheckAlive(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.code is not None:
            context.abort(self.code, "no")
        return CheckAliveReply()


@contextmanager
def serving(port: int, head: Head | None) -> Iterator[None]:
    server = grpc.server(ThreadPoolExecutor(1))
    if head is not None:
        add_NodeInfoGcsServiceServicer_to_server(head, server)
    server.add_insecure_port(f"{HOST}:{port}")
    server.start()
    try:
        yield
    finally:
        server.stop(None).wait()


def refusal(address: str | None) -> str:
    with pytest.raises(SetupError) as caught:
        cluster_address(ClusterConfig(address=address))
    return str(caught.value)


@pytest.mark.parametrize("form", ["{}:{}", "ray://{}:{}"])
def test_what_answers_is_taken(form: str) -> None:
    port = free_port()
    with serving(port, Head()):
        address = form.format(HOST, port)
        assert cluster_address(ClusterConfig(address=address)) == address


def test_a_head_that_is_still_starting_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_S", 20.0)
    port, done = free_port(), threading.Event()

    def start_late() -> None:
        time.sleep(1.5)
        with serving(port, Head()):
            done.wait(30)

    thread = threading.Thread(target=start_late)
    thread.start()
    try:
        assert cluster_address(ClusterConfig(address=f"{HOST}:{port}")) == f"{HOST}:{port}"
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("form", ["{}:{}", "ray://{}:{}"])
def test_a_port_at_which_nothing_listens_is_told(form: str) -> None:
    address = form.format(HOST, free_port())
    message = refusal(address)
    assert address in message
    assert "Connection refused" in message
    assert "cluster.address" in message


@pytest.mark.slow
@pytest.mark.ray
def test_a_port_for_ray_clients_that_says_nothing_is_told_in_time() -> None:
    if ray.is_initialized():
        pytest.skip("this process is connected already")
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen(5)
        started = time.monotonic()
        with pytest.raises(SetupError, match=r"ray://127\.0\.0\.2:\d+ cannot be used"):
            connected(ClusterConfig(address=f"ray://{HOST}:{silent.getsockname()[1]}")).__enter__()
        assert time.monotonic() - started < 20


def test_a_host_that_is_not_known_is_told() -> None:
    assert "nosuch.invalid:6379" in refusal("nosuch.invalid:6379")


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "head:six", "head:0", "head:70000", "ray://head"])
def test_what_is_no_host_and_port_is_told(address: str) -> None:
    message = refusal(address)
    assert repr(address) in message
    assert "HEAD:6379" in message


def test_a_web_server_is_no_cluster() -> None:
    with http.server.ThreadingHTTPServer((HOST, 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            assert module.NOT_RAY in refusal(f"{HOST}:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()


def test_what_listens_and_stays_silent_is_no_cluster() -> None:
    with socket.create_server((HOST, 0)) as server:
        assert module.NOT_RAY in refusal(f"{HOST}:{server.getsockname()[1]}")


def test_another_service_with_the_same_protocol_is_no_cluster() -> None:
    port = free_port()
    with serving(port, None):
        assert module.NOT_RAY in refusal(f"{HOST}:{port}")


def test_a_cluster_that_wants_another_token_says_so() -> None:
    port = free_port()
    with serving(port, Head(grpc.StatusCode.UNAUTHENTICATED)):
        assert "RAY_AUTH_TOKEN" in refusal(f"{HOST}:{port}")


def test_a_connection_ends_before_ray_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # as other tests of this process may have done
    port, started = free_port(), time.monotonic()
    with pytest.raises(SetupError, match=f"{HOST}:{port}"), connected(ClusterConfig(address=f"{HOST}:{port}")):
        pass
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("address", [None, "auto"])
@pytest.mark.parametrize("variable", [DASHBOARD, f"{HOST}:1"])
def test_an_address_in_the_environment_is_named_as_such(
    address: str | None, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    message = refusal(address)
    assert variable in message
    assert "RAY_ADDRESS" in message


@pytest.mark.parametrize("variable", [DASHBOARD, f"{HOST}:1"])
def test_an_address_in_the_configuration_goes_before_that_of_the_environment(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster_address(ClusterConfig(address="local")) == "local"
    message = refusal(f"{HOST}:2")
    assert f"{HOST}:2" in message
    assert "RAY_ADDRESS" not in message


def test_a_dashboard_is_no_cluster() -> None:
    assert DASHBOARD in refusal(DASHBOARD)


@pytest.mark.parametrize("variable", [None, "", "local"])
def test_without_an_address_the_cluster_is_private(variable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster_address(ClusterConfig()) == "local"
