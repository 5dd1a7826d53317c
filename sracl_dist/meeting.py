"""The store by which processes of torch.distributed find one another.

Whoever reaches it can read and write it, and torch lets it listen on all addresses of the machine, whatever address the
processes are told to meet at.
"""

import importlib
import ipaddress
import socket
from typing import Any


def keep_store_on_loopback() -> None:
    """From now on a store that this process makes listens on loopback alone, if that is where it is to be found."""
    # By name, since the package has a function of the same name. Takes seconds, and not every process of an engine
    # needs it.
    module: Any = importlib.import_module("torch.distributed.rendezvous")
    module.TCPStore = _store


def _store(*, host_name: str, port: int, is_master: bool, **options: Any) -> Any:
    """A `TCPStore` with these arguments."""
    from torch.distributed import TCPStore

    if is_master and _is_loopback(host_name):
        options["master_listen_fd"] = socket.create_server((host_name, port)).detach()
    return TCPStore(host_name=host_name, port=port, is_master=is_master, **options)


def _is_loopback(host_name: str) -> bool:
    try:
        return ipaddress.ip_address(host_name).is_loopback
    except ValueError:
        return host_name == "localhost"
