"""A watchdog over an iterator that may block for ever, such as one of Ray Data whose engines hang."""

import contextlib
import contextvars
import ctypes
import queue
import threading
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

from sracl_dist.errors import StageError
from sracl_dist.observe import duration

MAX_WAITING = 16
"""Items that the iterator may be ahead of the reader."""
FULL_QUEUE_POLL_S = 0.05
STOP_TIMEOUT_S = 10.0
"""An iterator that does not return to Python in this time is left behind; it ends with the process."""

T = TypeVar("T")


class _Interrupted(BaseException):
    """Raised within the thread of an iterator whose reader has gone."""


class _End:
    """Behind the last item: what ended the iterator, None where it is finished."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def watched(items: Iterator[T], timeout_s: float) -> Generator[T, None, None]:
    """The items of a generator, made in a thread of their own, so that this one notices when none comes.

    However it ends, `items` is closed; where it is blocked, it is interrupted first.

    Raises:
        StageError: no item arrived for `timeout_s` seconds; the time that the reader takes does not count.
    """
    source: _Source[T] = _Source(items)
    try:
        while True:
            try:
                item = source.ready.get(timeout=timeout_s)
            except queue.Empty:
                raise StageError(
                    f"No answer arrived for {duration(timeout_s)} (profile.stall_timeout_s={timeout_s:g}); what was "
                    f"answered is kept: look at the engine's log and memory, or at the endpoint, and run the stage "
                    f"again, or raise the time where the model takes longer."
                ) from None
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        source.stop()


class _Source(Generic[T]):
    """Iterates in a thread and puts the items into a bounded queue."""

    def __init__(self, items: Iterator[T]) -> None:
        self.ready: queue.Queue[T | _End] = queue.Queue(MAX_WAITING)
        self._items = _closable(items)
        self._stopped = threading.Event()
        # In the reader's context, which knows for example how long nodes are waited for.
        work = contextvars.copy_context().run
        self._thread = threading.Thread(target=work, args=(self._run,), name="watched-iterator", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the iterator: at its next item, or where it is blocked as soon as it runs Python code."""
        self._stopped.set()
        self._thread.join(10 * FULL_QUEUE_POLL_S)
        if self._thread.is_alive() and self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Interrupted)
            )
            self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        with contextlib.suppress(_Interrupted):
            error: BaseException | None = None
            try:
                with contextlib.closing(self._items):
                    for item in self._items:
                        self._put(item)
                        if self._stopped.is_set():
                            return
            except BaseException as caught:
                error = caught
            self._put(_End(error))

    def _put(self, item: T | _End) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(queue.Full):
                self.ready.put(item, timeout=FULL_QUEUE_POLL_S)
                return


def _closable(items: Iterator[T]) -> Generator[T, None, None]:
    """The same; closing it closes `items` where they can be closed."""
    yield from items
