"""The clock is the test's own; workers that agree are real processes."""

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from sracl_dist.train import saving
from sracl_dist.train.saving import NOTICE_INTERVAL_S, Agreement, SaveSchedule
from sracl_dist.train.worker import Worker


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(saving.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def steps_saved(schedule: SaveSchedule, clock: Clock, num_steps: int, step_s: float) -> list[int]:
    saved = []
    for step in range(1, num_steps + 1):
        clock.now += step_s
        if schedule.is_due():
            saved.append(step)
    return saved


def test_the_clock_asks_and_the_step_after_saves(clock: Clock) -> None:
    schedule = SaveSchedule(60.0, Worker())
    # Due after step 6, agreed and saved after step 7 at 70 s; due again at 130 s, saved at 140 s.
    assert steps_saved(schedule, clock, 20, 10.0) == [7, 14]


def test_a_checkpoint_for_another_reason_sets_the_clock_back(clock: Clock) -> None:
    schedule = SaveSchedule(60.0, Worker())
    assert steps_saved(schedule, clock, 5, 10.0) == []
    schedule.has_saved()
    assert steps_saved(schedule, clock, 6, 10.0) == []
    assert steps_saved(schedule, clock, 1, 10.0) == [1]


def test_without_a_clock_nothing_is_due(clock: Clock) -> None:
    assert steps_saved(SaveSchedule(None, Worker()), clock, 20, 1e9) == []


def test_only_the_first_workers_clock_counts(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving.torch.distributed, "new_group", lambda backend: None)
    assert steps_saved(SaveSchedule(60.0, Worker(rank=1, world_size=2)), clock, 20, 10.0) == []


def test_a_machine_that_will_go_is_saved_for_once(clock: Clock) -> None:
    going = [False]
    asked = []
    schedule = SaveSchedule(None, Worker(), is_going=lambda: bool(asked.append(clock.now)) or going[0])
    assert steps_saved(schedule, clock, 10, NOTICE_INTERVAL_S) == []
    assert len(asked) == 5  # wished after one step and done after the next
    going[0] = True
    assert len(steps_saved(schedule, clock, 10, NOTICE_INTERVAL_S)) == 1
    going[0] = False
    steps_saved(schedule, clock, 4, NOTICE_INTERVAL_S)
    going[0] = True
    assert len(steps_saved(schedule, clock, 10, NOTICE_INTERVAL_S)) == 1
    assert not schedule.must_stop


def test_who_is_told_to_stop_saves_first(clock: Clock) -> None:
    told = [False]
    schedule = SaveSchedule(None, Worker(), is_told_to_stop=lambda: told[0])
    assert steps_saved(schedule, clock, 3, 1.0) == []
    told[0] = True
    assert steps_saved(schedule, clock, 2, 1.0) == [2]
    assert schedule.must_stop


def agree(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=3)
    agreement = Agreement(Worker(rank=rank, world_size=3))
    heard = [agreement.last()]
    for step in range(4):
        agreement.wish([step == rank, step == 3])
        heard.append(agreement.last())
    Path(folder, f"heard-{rank}").write_text(repr(heard))
    torch.distributed.destroy_process_group()


def test_all_hear_what_one_of_them_wishes(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(agree, (str(tmp_path),), nprocs=3, start_method="spawn")
    expected = [None, [True, False], [True, False], [True, False], [False, True]]
    assert [(tmp_path / f"heard-{rank}").read_text() for rank in range(3)] == [repr(expected)] * 3
