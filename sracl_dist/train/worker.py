"""One of the processes that train together; with a single one nothing is communicated."""

import os
from dataclasses import dataclass, field

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Worker:
    """Place of this process among those that train; where there are several, torch.distributed must be set up."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @property
    def is_on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        return self.device.type == "cuda"

    def sum_over_workers(self, values: Tensor) -> Tensor:
        """Elementwise sum of all workers' tensors; every worker must call it."""
        summed = values.to(self.device)
        if self.world_size > 1:
            summed = summed.clone()
            torch.distributed.all_reduce(summed)
        return summed


def prepare_process(device: torch.device, num_threads: int) -> None:
    """Set what decides the order of sums, so that the same training in another process yields the same numbers."""
    # cuBLAS is deterministic with a workspace of this size only, which it reads at its first use.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(num_threads)
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
