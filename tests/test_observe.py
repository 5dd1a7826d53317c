"""Progress lines on a terminal and elsewhere."""

import io
import os
import subprocess
import sys

import pytest

from sracl_dist import observe
from sracl_dist.observe import WIDTH, Progress, duration, quiet_libraries, say


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(observe, "time", clock)
    return clock


def test_a_line_has_share_count_rate_and_eta(clock: Clock) -> None:
    progress = Progress("profile items", 1682, stream=io.StringIO())
    clock.now += 50
    progress.update(760, failed=3)
    assert progress.line() == "profile items  45% 760/1,682 rows, 15.2 rows/s, ETA 1m00s, 3 failed"


def test_work_done_before_counts_in_the_share_but_not_in_the_rate(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("embed", 100, done=50, stream=stream)
    clock.now += 10
    progress.update(10)
    assert stream.getvalue() == ("embed: 50 of 100 rows were already done\nembed  60% 60/100 rows, 1 rows/s, ETA 40s\n")


def test_elsewhere_a_line_is_written_once_per_interval(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress("train", 10, "epochs", interval_s=5, stream=stream)
    for _ in range(10):
        clock.now += 1
        progress.update(1)
    assert stream.getvalue().count("\n") == 2
    assert "\r" not in stream.getvalue()


def test_on_a_terminal_the_line_is_redrawn_and_ends_at_close(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress("train", 10, "epochs", stream=stream)
    for _ in range(10):
        clock.now += 1
        progress.update(1, loss=4.25)
    progress.close()
    drawn = stream.getvalue().split("\r")
    assert len(drawn) == 12
    assert all(len(line.rstrip("\n")) == WIDTH for line in drawn[1:])
    assert drawn[-1].rstrip() == "train: 10 epochs in 10s, 1 epochs/s, 4.25 loss"
    assert stream.getvalue().count("\n") == 1


def test_a_long_line_does_not_wrap_on_a_terminal(clock: Clock) -> None:
    stream = Terminal()
    progress = Progress("p" * 300, 10, stream=stream)
    clock.now += 1
    progress.update(1)
    assert len(stream.getvalue()) == WIDTH + 1


@pytest.mark.parametrize("total", [0, 5])
def test_nothing_to_do_or_nothing_done_yet_is_no_error(clock: Clock, total: int) -> None:
    progress = Progress("evaluate", total, "users", stream=io.StringIO())
    assert "ETA unknown" in progress.line()
    progress.close()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0s"), (0.44, "0.4s"), (12.3, "12s"), (59.9, "60s"), (185, "3m05s"), (7620, "2h07m"), (360000, "100h00m")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_say_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_quiet_libraries_leaves_what_the_person_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"TQDM_DISABLE": "0"})
    quiet_libraries()
    assert os.environ["TQDM_DISABLE"] == "0"
    assert os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] == "1"


def test_observing_imports_none_of_the_heavy_libraries() -> None:
    program = "import sys, sracl_dist.cli; print([name for name in ('ray', 'torch', 'vllm') if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_the_trace_of_a_bug_is_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("API_KEY", "sk-0123456789")
    error = ValueError("the column \x1b[2J of sk-0123456789")
    observe.show_bug(ValueError, error, None)
    assert capsys.readouterr().err == "ValueError: the column \\x1b[2J of ***\n"
