"""A Ray cluster of several nodes on this machine, started as the manual says."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
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
            "RAY_worker_niceness": "0",  # or whatever else runs here goes first, and tests run out of time
            "OMP_NUM_THREADS": "1",
        }

    def start_head(self, num_cpus: int) -> None:
        _, port = self.address.split(":")
        self._start(
            num_cpus,
            f"--head --port={port} --node-ip-address=127.0.0.1 --include-dashboard=true --dashboard-host=127.0.0.1 "
            f"--dashboard-port={self.dashboard.rsplit(':', 1)[1]}",
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._ray("job", "list", "--address", self.dashboard).returncode:
            assert time.monotonic() < deadline, "the dashboard does not answer"
            time.sleep(1)

    def add(self, num_cpus: int = 1) -> subprocess.Popen[bytes]:
        """Start one more node; it takes a few seconds until it is there."""
        return self._start(num_cpus, f"--address={self.address} --node-ip-address=127.0.0.1")

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
        """Kill all that runs on a node, not the head, that has a process with such a title."""
        for node in self.processes[1:]:
            processes = self._processes_of(node)
            if any(worker in title_of(process) for process in processes):
                for process in processes:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                return
        raise AssertionError(f"no node has a process {worker}")

    def kill_worker(self, title: str) -> None:
        """Kill one process of any node that has such a title."""
        for node in self.processes:
            for process in self._processes_of(node):
                if title in title_of(process):
                    process.kill()
                    return
        raise AssertionError(f"no node has a process {title}")

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

    def _processes_of(self, node: subprocess.Popen[bytes]) -> list[psutil.Process]:
        try:
            first = psutil.Process(node.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _start(self, num_cpus: int, options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [
                *("ray", "start", "--block", f"--num-cpus={num_cpus}", "--object-store-memory=80000000"),
                f"--dashboard-agent-listen-port={free_port()}",  # jobs come through it, and its default may be taken
                # Nodes that share it unpack the code of a job anew under the feet of the others' workers.
                f"--temp-dir={self._folder}/{len(self.processes)}",
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


def title_of(process: psutil.Process) -> str:
    """Its command line, or an empty text where it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@contextlib.contextmanager
def ray_nodes(num_workers: int, *, head_cpus: int = 1) -> Iterator[Nodes]:
    """A head and so many nodes of one CPU; the folder's name is short because sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="rn-"))
    nodes = Nodes(folder)
    try:
        nodes.start_head(head_cpus)
        for number in range(num_workers):  # two raylets that start at once on a machine take the same socket
            nodes.add()
            nodes.wait_for(number + 2)
        yield nodes
    finally:
        nodes.stop()
        shutil.rmtree(folder, ignore_errors=True)


def read_until(words: str, job: subprocess.Popen[str]) -> None:
    """Read the job's log as far as a line with these words."""
    assert job.stdout is not None
    told = []
    for line in job.stdout:
        told.append(line)
        if words in line:
            return
    raise AssertionError("".join(told))


def log_of(job: subprocess.Popen[str], timeout_s: float = 300) -> str:
    """What the job told until it ended, behind what was read already; it is killed when that takes too long."""
    assert job.stdout is not None
    timer = threading.Timer(timeout_s, job.kill)
    timer.start()
    told = job.stdout.read()
    timer.cancel()
    job.wait()
    return told


def wait_until(reached: Callable[[], bool], job: subprocess.Popen[str], timeout_s: float = 200) -> None:
    """Wait until it is reached while the job runs."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert job.poll() is None, log_of(job)
        if time.monotonic() > deadline:
            job.kill()
            raise AssertionError(f"it was not reached in {timeout_s:g} s: {log_of(job)}")
        time.sleep(0.05)
