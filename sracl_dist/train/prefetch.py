"""The next batches, made by a thread while the model trains on the one before."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

NUM_AHEAD = 2
"""Batches that are made ahead of the one in use."""

Given = TypeVar("Given")
Made = TypeVar("Made")


def made_ahead(make: Callable[[Given], Made], inputs: Iterable[Given]) -> Generator[Made, None, None]:
    """`make` of every input, in their order, made by one thread that is NUM_AHEAD inputs ahead.

    What `make` raises is raised where its result would have come. Closing the iterator ends the thread.
    """
    waiting: deque[Future[Made]] = deque()
    pool = ThreadPoolExecutor(1, "batches")
    try:
        for one in inputs:
            waiting.append(pool.submit(make, one))
            if len(waiting) > NUM_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
