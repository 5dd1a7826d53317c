"""When a checkpoint is due within an epoch: by the clock, before a machine goes, or because a worker must end.

Workers save together, so they must agree after every step. What each wishes is summed up in the background while the
next step runs, and acted upon after it; no step waits, and a GPU is not asked for anything.
"""

import time
from collections.abc import Callable, Sequence

import torch
import torch.distributed
from torch import Tensor

from sracl_dist.train.worker import Worker

NOTICE_INTERVAL_S = 5.0
"""How often the first worker has the workers look for a notice that a machine will go."""


class Agreement:
    """What at least one worker wished after the step before; every worker must ask after every step."""

    def __init__(self, worker: Worker) -> None:
        several = worker.world_size > 1
        self._group = torch.distributed.new_group(backend="gloo") if several else None
        self._wishes: Tensor | None = None
        self._sent: torch.distributed.Work | None = None

    def last(self) -> list[bool] | None:
        """What was wished after the step before, None after the first."""
        if self._sent is not None:
            self._sent.wait()
        return None if self._wishes is None else self._wishes.bool().tolist()

    def wish(self, wishes: Sequence[bool]) -> None:
        """Let the other workers know, in the background."""
        self._wishes = torch.tensor(wishes, dtype=torch.int32)
        if self._group is not None:
            maximum = torch.distributed.ReduceOp.MAX
            self._sent = torch.distributed.all_reduce(self._wishes, maximum, self._group, async_op=True)


class SaveSchedule:
    """Asked after every step whether all workers save now.

    Args:
        every_s: seconds between two checkpoints by the first worker's clock; None: no such clock.
        worker: this process.
        is_told_to_stop: whether this process was told to end.
        is_going: whether a machine was announced to go; asked on every worker after the same step.
    """

    def __init__(
        self,
        every_s: float | None,
        worker: Worker,
        *,
        is_told_to_stop: Callable[[], bool] = lambda: False,
        is_going: Callable[[], bool] = lambda: False,
    ) -> None:
        self._every_s = float("inf") if every_s is None else every_s
        self._is_first = worker.is_first
        self._is_told_to_stop, self._is_going = is_told_to_stop, is_going
        self._agreement = Agreement(worker)
        self._saved_at = self._looked_at = time.monotonic()
        self._was_going = False
        self.must_stop = False
        """Whether some worker was told to end, so that all end after this checkpoint."""

    def is_due(self) -> bool:
        """Whether to save now; the same on every worker."""
        save, look, stop = self._agreement.last() or (False, False, False)
        if look:
            self._looked_at = time.monotonic()
            going = self._is_going()
            save |= going and not self._was_going
            self._was_going = going
        self.must_stop |= stop
        save |= stop
        if save:
            self.has_saved()
        self._agreement.wish(self._wishes())
        return save

    def has_saved(self) -> None:
        """Let the clock run anew."""
        self._saved_at = time.monotonic()

    def _wishes(self) -> tuple[bool, bool, bool]:
        now = time.monotonic()
        by_clock = self._is_first and now - self._saved_at >= self._every_s
        look = self._is_first and now - self._looked_at >= NOTICE_INTERVAL_S
        return by_clock, look, self._is_told_to_stop()
