"""What a person sees while work goes on: progress lines with rate and ETA, and metrics as JSON lines."""

import os
import sys
import time
import traceback
from types import TracebackType
from typing import Any, TextIO

from sracl_dist.visible import visible

WIDTH = 110


def say(message: str) -> None:
    """Print one line for the person who runs the job, without secrets and without what a terminal would obey."""
    sys.stderr.write(visible(message) + "\n")
    sys.stderr.flush()


def put_out(text: str) -> None:
    """Write what a job was asked for to standard output, cleaned as in `say`; its line breaks stay."""
    sys.stdout.write(visible(text, lines=True))
    sys.stdout.flush()


def show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print the trace of an error that is no user's, cleaned as in `say`; made for `sys.excepthook`."""
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace)), lines=True))
    sys.stderr.flush()


def quiet_libraries() -> None:
    """Keep the libraries' progress bars and notices out of a job's output; call it before they are imported.

    Warnings and errors stay. A value that the person has set in the environment is left as it is.
    """
    for name, value in (
        ("RAY_DATA_DISABLE_PROGRESS_BARS", "1"),
        ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TQDM_DISABLE", "1"),
        ("VLLM_LOGGING_LEVEL", "ERROR"),
    ):
        os.environ.setdefault(name, value)


class Progress:
    """A line such as `profile items  45% 760/1,682 rows, 14.2 rows/s, ETA 1m05s, 3 failed`.

    On a terminal the line is redrawn in place; elsewhere a new line is written at most every `interval_s`.
    """

    def __init__(
        self,
        label: str,
        total: int,
        unit: str = "rows",
        *,
        done: int = 0,
        interval_s: float = 5.0,
        stream: TextIO | None = None,
    ) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._already = done
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._interval_s = 0.2 if self._terminal else interval_s
        self._started = self._printed = time.monotonic()
        self._facts: dict[str, Any] = {}
        if done:
            self._write(f"{label}: {done:,} of {total:,} {unit} were already done")

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def update(self, num: int, **facts: Any) -> None:
        """Count `num` more units; `facts` are shown behind the line, such as `failed=3`."""
        self.done += num
        self._facts.update(facts)
        now = time.monotonic()
        if now - self._printed >= self._interval_s:
            self._printed = now
            self._write(self.line(), redraw=True)

    def line(self) -> str:
        """The current line."""
        elapsed = max(time.monotonic() - self._started, 1e-6)
        rate = (self.done - self._already) / elapsed
        share = self.done / self.total if self.total else 1.0
        eta = f"ETA {duration((self.total - self.done) / rate)}" if rate > 0 else "ETA unknown"
        counts = f"{share:4.0%} {self.done:,}/{self.total:,} {self.unit}"
        return f"{self.label} {counts}, {_compact(rate)} {self.unit}/s, {eta}{self._facts_text()}"

    def close(self) -> None:
        """Write the last line, with the time it took."""
        elapsed = max(time.monotonic() - self._started, 1e-6)
        num = self.done - self._already
        rate = f"{_compact(num / elapsed)} {self.unit}/s"
        line = f"{self.label}: {num:,} {self.unit} in {duration(elapsed)}, {rate}{self._facts_text()}"
        self._write(line, redraw=self._terminal)
        if self._terminal:
            self._stream.write("\n")
        self._stream.flush()

    def _facts_text(self) -> str:
        return "".join(f", {_compact(value)} {name.replace('_', ' ')}" for name, value in self._facts.items())

    def _write(self, text: str, *, redraw: bool = False) -> None:
        line = visible(text)
        if self._terminal and redraw:
            self._stream.write("\r" + line[:WIDTH].ljust(WIDTH))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def duration(seconds: float) -> str:
    """Seconds as a short text: 0.4s, 12s, 3m05s, 2h07m."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 60:
        return f"{seconds:.0f}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m{int(seconds % 60):02d}s"
    return f"{int(seconds // 3600)}h{int(seconds % 3600 // 60):02d}m"


def _compact(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
