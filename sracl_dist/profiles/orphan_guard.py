"""A vLLM plug-in: an engine's processes end with the process that started them, and meet on loopback where they can.

vLLM's engine core waits for requests for ever, so that a killed Ray worker, or a killed driver with its whole private
cluster, would leave an engine behind that holds its memory and cores.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading

from sracl_dist.meeting import keep_store_on_loopback


def watch_parent() -> None:
    """Watch the parent in the background, and set the process up for its own start of torch.distributed.

    Does nothing in a process that multiprocessing did not start.

    vLLM calls it in each of its processes (entry point `vllm.general_plugins`).
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="orphan-guard", daemon=True).start()
    keep_store_on_loopback()
