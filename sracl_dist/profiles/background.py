"""An event loop in a thread of its own, whose rows an ordinary loop reads from a bounded queue."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

FULL_QUEUE_POLL_S = 0.05
WAKE_INTERVAL_S = 0.25
GATHER_S = 0.01
STOP_TIMEOUT_S = 10.0
"""A name server that does not answer can hold the thread up; it then ends with the process."""

Row = dict[str, Any]
Put = Callable[[Row], Awaitable[None]]
"""Hands a row over; waits while the reader is slow."""


class _End:
    """Behind the last row: what ended the work, None where it is finished."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class BackgroundRows:
    """Starts `work`, a coroutine function that puts rows, in the background."""

    def __init__(self, work: Callable[[Put], Awaitable[None]], max_waiting_rows: int) -> None:
        self._work = work
        self._rows: queue.Queue[Row | _End] = queue.Queue(max_waiting_rows)
        self._stopped, self._is_full = threading.Event(), threading.Event()
        self._has_room = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="background-rows", daemon=True)
        self._thread.start()

    def batches(self) -> Iterator[list[Row]]:
        """All rows, as many at a time as are ready; behind them raises what ended the work."""
        while True:
            ready = [self._next()]
            # Whoever reads takes about as long for one row as for twenty, and both threads share one processor.
            self._is_full.wait(GATHER_S)
            self._is_full.clear()
            with contextlib.suppress(queue.Empty):
                while len(ready) < self._rows.maxsize:
                    ready.append(self._rows.get_nowait())
            self._wake(self._has_room.set)
            if rows := [row for row in ready if not isinstance(row, _End)]:
                yield rows
            last = ready[-1]
            if isinstance(last, _End):
                if last.error is not None:
                    raise last.error
                return

    def _next(self) -> Row | _End:
        """Wait in short steps, because a thread that waits without end cannot be interrupted."""
        while True:
            with contextlib.suppress(queue.Empty):
                return self._rows.get(timeout=WAKE_INTERVAL_S)

    def stop(self) -> None:
        """Cancel the work and end the thread; does nothing behind the last row."""
        self._stopped.set()
        if self._loop is not None:  # else there is no task yet
            self._wake(self._task.cancel)
        self._thread.join(STOP_TIMEOUT_S)

    def _wake(self, call: Callable[[], Any]) -> None:
        """Have the loop make the call."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._run_work())
        except BaseExceptionGroup as group:
            error = group.exceptions[0]
        except BaseException as single:
            error = single
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self._rows.put(_End(error), timeout=FULL_QUEUE_POLL_S)
                break

    async def _run_work(self) -> None:
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._loop = asyncio.get_running_loop()
        if not self._stopped.is_set():  # before `_loop` was there to cancel anything
            await self._work(self._put)

    async def _put(self, row: Row) -> None:
        """Put without blocking the event loop, which keeps the other requests alive."""
        while True:
            try:
                self._rows.put_nowait(row)
            except queue.Full:
                self._is_full.set()
                self._has_room.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._has_room.wait(), FULL_QUEUE_POLL_S)
            else:
                return
