"""Memory that the workers of a machine share for what all of them would write alike: the bank of users' states."""

import contextlib
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from sracl_dist.errors import StageError
from sracl_dist.model.synthesis import StateBank
from sracl_dist.shared_arrays import BOOT
from sracl_dist.train.worker import Worker

PROCESSES = Path("/proc/self/ns/pid")
"""The container, or machine, whose processes see each other."""

Told = TypeVar("Told")


def share_banks(model: nn.Module, worker: Worker) -> None:
    """Let the workers of a machine have one bank together, where there are several and it is not on a GPU.

    No lock is needed. All workers write the same states, and each of them writes behind a meeting of all (where they
    gather the states), which every one enters after it has read what it needs for the step.

    Every worker must call it.
    """
    if worker.world_size == 1 or worker.is_on_gpu:
        return
    for bank in (module for module in model.modules() if isinstance(module, StateBank)):
        for name, values in list(bank.named_buffers()):
            setattr(bank, name, _zeros_of_machine(values, worker))


def _zeros_of_machine(like: Tensor, worker: Worker) -> Tensor:
    """A tensor of zeros of this form that the workers of each machine share."""
    num_bytes = math.prod(like.shape) * like.element_size()
    if not num_bytes:
        return like
    machine = f"{BOOT.read_text()} {os.readlink(PROCESSES)} {os.getuid()}"
    leader = _told_by_all(machine, worker).index(machine)
    with _memory(num_bytes if leader == worker.rank else 0) as own:
        process, theirs = _told_by_all((os.getpid(), own), worker)[leader]
        mapped, trouble = None, ""
        try:
            descriptor = os.open(f"/proc/{process}/fd/{theirs}", os.O_RDWR | os.O_CLOEXEC)
            try:
                mapped = mmap.mmap(descriptor, num_bytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            trouble = str(error.strerror)
        # The leader's is there until all have opened it.
        troubles = [told for told in _told_by_all(trouble, worker) if told]
    if troubles or mapped is None:
        raise StageError(
            f"The workers of a machine cannot share {num_bytes / 1e9:.1f} GB of memory for the bank of users' states "
            f"({troubles[0]}); set objectives.cross_sequence.neighbour_states=encoded, or one worker for each machine."
        )
    return torch.frombuffer(mapped, dtype=like.dtype).view(like.shape)


@contextlib.contextmanager
def _memory(num_bytes: int) -> Iterator[int]:
    """Descriptor of so much memory without a name, or of nothing; what maps it keeps it."""
    if not num_bytes:
        yield -1
        return
    descriptor = os.memfd_create("sracl-bank", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, num_bytes)
        yield descriptor
    finally:
        os.close(descriptor)


def _told_by_all(own: Told, worker: Worker) -> list[Told]:
    """What every worker tells, by rank."""
    told: list[Told] = [own] * worker.world_size
    torch.distributed.all_gather_object(told, own)
    return told
