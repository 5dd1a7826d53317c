"""A watched iterator: its items, its errors, and what happens when it blocks."""

import contextvars
import threading
import time
from collections.abc import Iterator

import pytest

from sracl_dist.errors import StageError
from sracl_dist.profiles import watchdog
from sracl_dist.profiles.watchdog import MAX_WAITING, watched


class Source:
    """A generator that tells what became of it; `pauses` are made before the items of these numbers."""

    def __init__(self, num_items: int, pauses: dict[int, float] | None = None, error: Exception | None = None) -> None:
        self.num_made = 0
        self.closed = threading.Event()
        self._num_items, self._pauses, self._error = num_items, pauses or {}, error

    def items(self) -> Iterator[int]:
        try:
            for number in range(self._num_items):
                deadline = time.monotonic() + self._pauses.get(number, 0)
                while time.monotonic() < deadline:
                    time.sleep(0.01)
                self.num_made += 1
                yield number
            if self._error:
                raise self._error
        finally:
            self.closed.set()


def iter_into(seen: list[int], items: Iterator[int]) -> None:
    for item in items:
        seen.append(item)  # one by one, because what came before an error counts


def test_the_items_come_in_order_and_the_source_is_closed() -> None:
    source = Source(100)
    assert list(watched(source.items(), 5)) == list(range(100))
    assert source.closed.is_set()


def test_the_error_of_the_source_comes_behind_its_items() -> None:
    source = Source(3, error=StageError("The engine is broken; mend it."))
    seen: list[int] = []
    with pytest.raises(StageError, match="The engine is broken"):
        iter_into(seen, watched(source.items(), 5))
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("stalls_at", [0, 2])
def test_a_stall_is_one_sentence_and_ends_the_source(stalls_at: int) -> None:
    source = Source(5, pauses={stalls_at: 60})
    seen: list[int] = []
    started = time.monotonic()
    with pytest.raises(StageError) as caught:
        iter_into(seen, watched(source.items(), 0.3))
    assert seen == list(range(stalls_at)), "what had arrived was handed over"
    assert str(caught.value).startswith("No answer arrived for 0.3s (profile.stall_timeout_s=0.3); what was answered")
    assert source.closed.is_set(), "a source that is blocked in Python code is interrupted and cleans up"
    assert time.monotonic() - started < 10


def test_many_short_waits_are_no_stall() -> None:
    source = Source(6, pauses=dict.fromkeys(range(6), 0.2))
    assert len(list(watched(source.items(), 0.8))) == 6


def test_the_time_of_a_slow_reader_is_no_stall_and_holds_the_source_back() -> None:
    source = Source(200)
    items = watched(source.items(), 0.2)
    next(items)
    time.sleep(0.6)
    assert source.num_made <= MAX_WAITING + 3
    assert len(list(items)) == 199


def test_a_reader_that_stops_closes_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "ctypes", None)  # it is not blocked, so it need not be interrupted
    source = Source(10_000)
    items = watched(source.items(), 5)
    assert next(items) == 0
    items.close()
    assert source.closed.wait(5)
    assert source.num_made < 10_000


def test_a_source_that_cannot_be_interrupted_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "STOP_TIMEOUT_S", 0.1)
    release = threading.Event()

    def blocked() -> Iterator[int]:
        release.wait(30)  # in C, where no exception reaches it
        yield 1

    started = time.monotonic()
    with pytest.raises(StageError, match="No answer arrived"):
        list(watched(blocked(), 0.2))
    assert time.monotonic() - started < 5
    release.set()


def test_an_iterator_without_close_is_watched_as_well() -> None:
    assert list(watched(iter([1, 2]), 5)) == [1, 2]


def test_items_are_made_in_the_context_of_the_reader() -> None:
    place: contextvars.ContextVar[str] = contextvars.ContextVar("place")
    place.set("here")
    assert list(watched((place.get() for _ in range(2)), 5)) == ["here", "here"]
