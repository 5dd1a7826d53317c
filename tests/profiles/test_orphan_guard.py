"""A child of a killed process ends by itself; vLLM finds the guard."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time

import pytest
from programs import SHARED_MEMORY, programs_in_own_folder

PROGRAM = """
import multiprocessing, os, time
from sracl_dist.profiles.orphan_guard import watch_parent

def child():
    watch_parent()
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    multiprocessing.get_context("fork").Process(target=child).start()
    time.sleep(60)
"""

ENGINE = """
import time
from multiprocessing.shared_memory import SharedMemory
from sracl_dist.cluster import connected, map_shards
from sracl_dist.config.sections import ClusterConfig
from sracl_dist.profiles.orphan_guard import watch_parent

def make():
    watch_parent()
    def process(shard):
        if shard == "wait":
            time.sleep(600)
        process.shared = SharedMemory(create=True, size=100)
        return process.shared.name
    return process

def tell(_, name):
    print(name, flush=True)

with connected(ClusterConfig(address="local", num_cpus=1, object_store_bytes=80_000_000)):
    map_shards(make, (), ["make", "wait"], tell, num_workers=1)
"""


def is_running(pid: int) -> bool:
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_ends_with_its_killed_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert is_running(child)
        parent.kill()
        parent.wait()
        deadline = time.monotonic() + 20
        while is_running(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(child)
    finally:
        if is_running(child):
            os.kill(child, signal.SIGKILL)


@pytest.mark.ray
def test_the_shared_memory_of_an_engine_goes_with_the_killed_group_of_its_program() -> None:
    with programs_in_own_folder() as programs:
        program = programs.start("-c", ENGINE, start_new_session=True, stdout=subprocess.PIPE)
        assert program.stdout is not None
        shared = SHARED_MEMORY / program.stdout.readline().strip()
        assert shared.exists()
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()
        programs.wait_until_gone()
        assert not shared.exists()


def test_vllm_loads_it() -> None:
    plugins = importlib.metadata.entry_points(group="vllm.general_plugins")
    assert "sracl_dist.profiles.orphan_guard:watch_parent" in [plugin.value for plugin in plugins]
