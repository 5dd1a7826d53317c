"""What an epoch adds up, step by step: the terms of the loss, the gradient's norm, and the seconds it took."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

GRADIENT_NORM = "gradient_norm"

Made = TypeVar("Made")


class Tally:
    """Sums over the steps of one epoch, begun anew or where `progress` stands in the middle of it.

    This worker's share is kept on its device, so that no step waits for it.
    """

    def __init__(self, worker: Worker, progress: Progress) -> None:
        self._worker = worker
        self._names = tuple(progress.sums)
        # What was added up before belongs to all workers together, so that one of them has it.
        before = [value if worker.is_first else 0.0 for value in progress.sums.values()]
        self._sums = torch.tensor(before, dtype=torch.float64, device=worker.device)
        self._began = time.monotonic() - progress.train_s
        self._waited_s = progress.wait_s

    def add(self, terms: dict[str, Tensor], norm: Tensor) -> None:
        """Count a step: this worker's share of every term, and the norm, which is the same for all workers."""
        values = torch.stack([*terms.values(), norm / self._worker.world_size]).double()
        self._names = (*terms, GRADIENT_NORM)
        self._sums = self._sums + values if len(self._sums) else values

    def waiting_for(self, made: Iterable[Made]) -> Iterator[Made]:
        """The same, with the time that passes until each is there counted as waiting."""
        iterator = iter(made)
        while True:
            started = time.monotonic()
            try:
                one = next(iterator)
            except StopIteration:
                return
            self._waited_s += time.monotonic() - started
            yield one

    def write_to(self, progress: Progress) -> None:
        """Put the sums of all workers into `progress`; every worker must call it."""
        totals = self._worker.sum_over_workers(self._sums).tolist()
        progress.sums = dict(zip(self._names, totals, strict=True))
        progress.train_s, progress.wait_s = time.monotonic() - self._began, self._waited_s
