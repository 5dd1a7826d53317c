"""A vLLM plug-in: an engine's processes end with the process that started them, and meet on loopback where they can.

vLLM's engine core waits for requests for ever, so that a killed Ray worker, or a killed driver with its whole private
cluster, would leave an engine behind that holds its memory and cores.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading

from sracl_dist.meeting import keep_store_on_loopback

WORKERS_LEAD_GROUPS = "RAY_process_group_cleanup_enabled"
"""Variable by which Ray lets each worker lead a process group, and ends the whole group with the worker."""


def watch_parent() -> None:
    """Watch the parent in the background, and set the process up for its own start of torch.distributed.

    In a worker of a private cluster, which starts the engine, it sees to it that whoever kills the program's process
    group spares the process that deletes the engine's shared memory. In other processes that multiprocessing did not
    start, it does nothing.

    vLLM calls it in each of its processes (entry point `vllm.general_plugins`).
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        _leave_group_of_program()
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, name="orphan-guard", daemon=True).start()
    keep_store_on_loopback()


def _leave_group_of_program() -> None:
    """Lead a process group, in which those stay that this worker starts; they end with it all the same."""
    if os.environ.get(WORKERS_LEAD_GROUPS) == "0":
        import ray  # takes a second, and other programs that use vLLM do not need it

        if ray.is_initialized() and ray.get_runtime_context().get_actor_id() is not None:
            os.setpgrp()
