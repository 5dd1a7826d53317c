"""Rows of all workers in one tensor, with gradients that find their way back.

M rows of this worker, G rows of all workers, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor


def gather_rows(rows_MD: Tensor, counts: Sequence[int], rank: int) -> Tensor:
    """Rows [G, D] of all workers, in the order of their ranks; every worker must call it.

    The gradient of a row is the sum of what all workers' losses ask of it, so that the sum of the workers' gradients is
    the gradient of the sum of their losses.

    Args:
        rows_MD: this worker's rows.
        counts: number of rows of every worker, which all know beforehand.
        rank: this worker.
    """
    if len(counts) == 1:
        return rows_MD
    gathered: Tensor = _Gather.apply(rows_MD, tuple(counts), rank)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, rows_MD: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        context.counts, context.rank = counts, rank
        widest = max(counts)
        padded = F.pad(rows_MD, (0, 0, 0, widest - len(rows_MD))).contiguous()
        parts = [torch.empty_like(padded) for _ in counts]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total_GD = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total_GD)
        start = sum(context.counts[: context.rank])
        return total_GD[start : start + context.counts[context.rank]], None, None
