"""Whether a Ray cluster answers at an address; `ray.init` itself takes minutes to find that none does."""

import os
import socket
import time
from contextlib import closing
from typing import Any

import grpc
from ray._common.network_utils import parse_address
from ray._private.gcs_utils import create_gcs_channel
from ray._private.services import canonicalize_bootstrap_address
from ray.core.generated import gcs_service_pb2
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from sracl_dist.config.sections import ClusterConfig
from sracl_dist.errors import SetupError, brief, first_line

CONNECT_S, ANSWER_S = 8.0, 8.0
"""How long a cluster may take until it listens, as one that is starting does, and until it then answers."""
POLL_S = 0.5
CLIENT = "ray://"
NOT_RAY = "what listens there does not answer as Ray does"
REFUSALS = {
    grpc.StatusCode.UNAVAILABLE: NOT_RAY,
    grpc.StatusCode.DEADLINE_EXCEEDED: NOT_RAY,
    grpc.StatusCode.UNIMPLEMENTED: NOT_RAY,
    grpc.StatusCode.UNAUTHENTICATED: "it wants another token, see RAY_AUTH_MODE and RAY_AUTH_TOKEN",
}
"""What is said of a call that fails; in other cases Ray itself is asked."""


def cluster_address(config: ClusterConfig) -> str:
    """Address of the configured cluster, which answers there, or `local` for a private one.

    Raises:
        SetupError: no Ray cluster answers.
    """
    address, setting = config.address, "cluster.address"
    if address in (None, "auto") and os.environ.get("RAY_ADDRESS"):
        address, setting = os.environ["RAY_ADDRESS"], "RAY_ADDRESS"
    if address in (None, "", "local"):
        return "local"
    if address.startswith(("http://", "https://")):
        raise SetupError(
            f"{setting} is {brief(address)}, the address of a dashboard, which only `ray job submit` takes; set "
            f"cluster.address to that of the cluster, such as HEAD:6379, or to local for one of this program's own."
        )
    try:
        target = _target(address)
        if target is not None:
            _wait_until_listening(target)
            # A server for clients is not asked: it starts a process for the next one, which now and then hung after a
            # call, and Ray's own client gives up after half a minute.
            if not address.startswith(CLIENT):
                _require_ray(target)
    except (OSError, ValueError) as error:
        raise SetupError(
            f"No Ray cluster can be reached at {brief(address)} ({first_line(error)}); start it, or correct {setting}."
        ) from None
    return address


def _target(address: str) -> str | None:
    """Host and port at which the cluster must listen; None where only the package of a service knows them."""
    if address.startswith(CLIENT):
        return address.removeprefix(CLIENT)
    if "://" in address:
        return None
    if address != "auto":
        _host_and_port(address)  # Ray logs a trace where the host is missing
    target: str | None = canonicalize_bootstrap_address(address)
    return target


def _host_and_port(target: str) -> tuple[str, int]:
    host, port = parse_address(target) or ("", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError("this is not a host and a port, such as HEAD:6379")
    return host, int(port)


def _wait_until_listening(target: str) -> None:
    """Raise OSError where nothing listens in time."""
    deadline = time.monotonic() + CONNECT_S
    while True:
        try:
            with socket.create_connection(_host_and_port(target), timeout=CONNECT_S / 2):
                return
        except OSError as error:
            if time.monotonic() + POLL_S > deadline:
                reason = error.strerror or first_line(error)
                raise OSError(f"{target} was tried for {CONNECT_S:.0f} s: {reason}") from None
        time.sleep(POLL_S)


def _require_ray(target: str) -> None:
    """Raise OSError where something other than Ray listens, or Ray refuses the token."""
    messages: Any = gcs_service_pb2  # whose classes are made at import
    with closing(create_gcs_channel(target)) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(
                messages.CheckAliveRequest(), timeout=ANSWER_S, wait_for_ready=True
            )
        except grpc.RpcError as error:
            if error.code() in REFUSALS:
                raise OSError(f"{target} was asked: {REFUSALS[error.code()]}") from None
