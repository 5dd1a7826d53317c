from itertools import count

import pytest
import torch

from sracl_dist.train import tally as module
from sracl_dist.train.state import Progress
from sracl_dist.train.tally import Tally
from sracl_dist.train.worker import Worker


def add(tally: Tally, loss: float, norm: float) -> None:
    tally.add({"next_item": torch.tensor(loss), "total": torch.tensor(2 * loss)}, torch.tensor(norm))


def test_sums_go_on_where_they_stood() -> None:
    tally, progress = Tally(Worker(), Progress()), Progress()
    add(tally, 0.1, 3.0)
    tally.write_to(progress)
    resumed = Tally(Worker(), progress)
    add(resumed, 0.2, 4.0)
    add(tally, 0.2, 4.0)
    undisturbed = Progress()
    tally.write_to(undisturbed)
    resumed.write_to(progress)
    assert progress.sums == undisturbed.sums
    assert progress.sums == pytest.approx({"next_item": 0.3, "total": 0.6, "gradient_norm": 7.0})


def test_what_was_there_before_is_counted_by_one_worker() -> None:
    progress = Progress(sums={"total": 5.0, "gradient_norm": 2.0})
    shares = [Tally(Worker(rank=rank, world_size=2), progress) for rank in (0, 1)]
    for tally in shares:
        tally.add({"total": torch.tensor(1.0)}, torch.tensor(3.0))  # the norm of both together
    totals = sum(tally._sums for tally in shares)
    assert totals.tolist() == [7.0, 5.0]


def test_an_epoch_without_steps_left_keeps_its_sums() -> None:
    progress = Progress(sums={"total": 5.0, "gradient_norm": 2.0})
    Tally(Worker(), progress).write_to(progress)
    assert progress.sums == {"total": 5.0, "gradient_norm": 2.0}


def test_time_and_the_waiting_in_it_go_on_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(100)  # every look at the clock is a second later
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(ticks)))
    progress = Progress(sums={"total": 0.0, "gradient_norm": 0.0}, train_s=50.0, wait_s=7.0)
    tally = Tally(Worker(), progress)  # at 100
    assert list(tally.waiting_for("ab")) == ["a", "b"]  # from 101 to 102, from 103 to 104, and the end at 105
    tally.write_to(progress)  # at 106
    assert (progress.train_s, progress.wait_s) == (56.0, 9.0)
