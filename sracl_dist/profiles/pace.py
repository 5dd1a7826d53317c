"""When the next request to an endpoint may start."""

import asyncio
import time


class Pace:
    """Spaces the starts of requests, and holds all of them back while the server asks to wait."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._interval_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._next_start_s = 0.0
        self._lock = asyncio.Lock()

    async def turn(self) -> None:
        """Wait for the right to start one request, first come first served."""
        async with self._lock:
            while (wait_s := self._next_start_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            self._next_start_s = time.monotonic() + self._interval_s

    def pause(self, wait_s: float) -> None:
        """Start nothing for so long."""
        self._next_start_s = max(self._next_start_s, time.monotonic() + wait_s)
