"""The rate of an engine, with a clock that moves when told."""

import pytest

from sracl_dist.profiles import rate as rate_module
from sracl_dist.profiles.rate import ENOUGH_ANSWERS, Rate, RateMeter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_module, "time", clock)
    return clock


def test_without_enough_answers_there_is_no_rate(clock: Clock) -> None:
    meter = RateMeter(1)
    clock.now += 10
    assert meter.rate() is None
    meter.add(ENOUGH_ANSWERS - 1, 500)
    assert meter.rate() is None
    meter.add(1, 0)
    assert meter.rate() == Rate(output_tokens_per_s=50.0, num_answers=ENOUGH_ANSWERS)


def test_failures_without_a_token_are_no_rate(clock: Clock) -> None:
    meter = RateMeter(1)
    clock.now += 10
    meter.add(ENOUGH_ANSWERS, 0)
    assert meter.rate() is None


def test_the_start_of_the_engine_is_left_out_of_a_long_measurement(clock: Clock) -> None:
    meter = RateMeter(2)
    clock.now += 30
    meter.add(100, 1000)
    clock.now += 60
    meter.add(200, 2400)
    clock.now += 1000  # nothing more came
    assert meter.rate() == Rate(output_tokens_per_s=20.0, num_answers=300)  # 2400 / 60 / 2


def test_answers_that_come_all_at_once_are_measured_with_the_start(clock: Clock) -> None:
    meter = RateMeter(1)
    clock.now += 30
    meter.add(50, 1000)
    clock.now += 10
    meter.add(50, 1000)
    assert meter.rate() == Rate(output_tokens_per_s=50.0, num_answers=100)  # 2000 / 40
