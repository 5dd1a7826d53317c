"""One of the processes that train together; with a single one nothing is communicated."""

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
