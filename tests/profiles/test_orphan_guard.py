"""A child of a killed process ends by itself; vLLM finds the guard."""

import importlib.metadata
import os
import signal
import subprocess
import sys
import time

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


def test_vllm_loads_it() -> None:
    plugins = importlib.metadata.entry_points(group="vllm.general_plugins")
    assert "sracl_dist.profiles.orphan_guard:watch_parent" in [plugin.value for plugin in plugins]
