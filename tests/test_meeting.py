"""The store of torch.distributed: who reaches it."""

import json
import socket
import subprocess
import sys

import pytest

PROGRAM = """
import json, sys
import psutil, torch, torch.distributed
from sracl_dist.meeting import keep_store_on_loopback

keep_store_on_loopback()
keep_store_on_loopback()
host, port = sys.argv[1:]
torch.distributed.init_process_group("gloo", init_method=f"tcp://{host}:{port}", rank=0, world_size=1)
total = torch.full((2,), 3.0)
torch.distributed.all_reduce(total)
sockets = psutil.Process().net_connections("tcp")
(address,) = {one.laddr.ip for one in sockets if one.status == "LISTEN" and one.laddr.port == int(port)}
print(json.dumps([address, total.tolist()]))
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("0.0.0.0", "::")]
)
def test_it_listens_on_loopback_alone_where_it_is_to_be_found_there(host: str, address: str) -> None:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    told = subprocess.run([sys.executable, "-c", PROGRAM, host, str(port)], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == [address, [3.0, 3.0]]
