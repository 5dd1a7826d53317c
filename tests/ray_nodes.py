"""A Ray cluster of several nodes on this machine, started as the manual says, each of one CPU."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

START_TIMEOUT_S = 120
ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
CURRENT_CLUSTER = Path("/tmp/ray/ray_current_cluster")
"""Where Ray notes the address of the cluster that last started on the machine."""

COUNT_NODES = """
import sys, ray
ray.init(sys.argv[1], log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nodes:
    """Starts nodes in the foreground, so that each is known by its process, which leads a session of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_DISABLE_IMPORT_WARNING": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
        }

    def start_head(self) -> None:
        _, port = self.address.split(":")
        self._start(
            f"--head --port={port} --node-ip-address=127.0.0.1 --include-dashboard=true --dashboard-host=127.0.0.1 "
            f"--dashboard-port={self.dashboard.rsplit(':', 1)[1]} --temp-dir={self._folder}"
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._ray("job", "list", "--address", self.dashboard).returncode:
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(1)

    def add(self) -> subprocess.Popen[bytes]:
        """Start one more node; it takes a few seconds until it is there."""
        return self._start(f"--address={self.address} --node-ip-address=127.0.0.1")

    def wait_for(self, num_nodes: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while len(self.raylets()) < num_nodes or not self._has(num_nodes):
            assert time.monotonic() < deadline, f"{num_nodes} nodes have not started"
            time.sleep(1)

    def raylets(self) -> list[psutil.Process]:
        """The process of each node that holds its workers, in the order of their starts."""
        found = []
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                children = psutil.Process(process.pid).children()
                alive = [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
                found += [child for child in alive if child.name() == "raylet"]
        return found

    def lose_node(self, worker: str) -> None:
        """Kill the raylet of a node, not the head, that has a worker with such a title."""
        for raylet in self.raylets()[1:]:
            if any(worker in " ".join(child.cmdline()) for child in raylet.children()):
                raylet.kill()
                return
        raise AssertionError(f"no node has a worker {worker}")

    def submit(self, *entrypoint: str, folder: Path = ROOT) -> subprocess.Popen[str]:
        """`ray job submit` from the folder, which ends when the job does."""
        return subprocess.Popen(
            ["ray", "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--", *entrypoint],
            env=self.environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def stop(self) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if CURRENT_CLUSTER.is_file() and CURRENT_CLUSTER.read_text() == self.address:
            CURRENT_CLUSTER.unlink()

    def _start(self, options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *("ray", "start", "--block", "--num-cpus=1", "--object-store-memory=80000000"),
                f"--dashboard-agent-listen-port={free_port()}",  # jobs come through it, and its default may be taken
                *options.split(),
            ],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def _has(self, num_nodes: int) -> bool:
        told = subprocess.run(
            [sys.executable, "-c", COUNT_NODES, self.address],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return told.stdout.strip() == str(num_nodes)

    def _ray(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["ray", *arguments], env=self.environment, capture_output=True, check=False)


@contextlib.contextmanager
def ray_nodes(num_workers: int) -> Iterator[Nodes]:
    """A head and so many nodes; the folder's name is short because sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="rn-"))
    nodes = Nodes(folder)
    try:
        nodes.start_head()
        for number in range(num_workers):  # two raylets that start at once on a machine take the same socket
            nodes.add()
            nodes.wait_for(number + 2)
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def log_of(job: subprocess.Popen[str], timeout_s: float = 300) -> str:
    """What the job told until it ended."""
    told, _ = job.communicate(timeout=timeout_s)
    return told


def wait_until(reached: Sequence[Path], job: subprocess.Popen[str], timeout_s: float = 200) -> None:
    """Wait until one of the files or folders is there, and not empty."""
    deadline = time.monotonic() + timeout_s
    while not any((path.is_dir() and any(path.iterdir())) or path.is_file() for path in reached):
        assert job.poll() is None, log_of(job)
        assert time.monotonic() < deadline, f"none of {reached} came"
        time.sleep(0.05)
