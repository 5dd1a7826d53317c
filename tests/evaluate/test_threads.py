"""Parts are worked on side by side, each by one thread, and PyTorch computes with as many threads afterwards."""

import threading
from collections.abc import Iterator

import pytest
import torch
from scripted_encoder import CPU

from sracl_dist.evaluate.threads import side_by_side


@pytest.mark.parametrize("num_parts", [0, 1, 2, 3, 50])
def test_results_are_in_order(num_parts: int) -> None:
    assert side_by_side(lambda part: part * part, range(num_parts), CPU) == [part * part for part in range(num_parts)]


def test_parts_are_worked_on_at_once_by_one_thread_each(threads: int) -> None:
    # Each part waits for the others, so this ends only where all of them have a thread.
    together = threading.Barrier(threads, timeout=60)

    def work(_: int) -> tuple[int, int]:
        together.wait()
        return threading.get_ident(), torch.get_num_threads()

    found = side_by_side(work, range(threads), CPU)
    assert len({thread for thread, _ in found}) == threads
    assert {num_threads for _, num_threads in found} == {1}
    assert torch.get_num_threads() == threads


def test_a_failure_is_raised_and_the_threads_are_as_before(threads: int) -> None:
    def work(part: int) -> None:
        if part >= 2:
            raise ValueError(f"part {part}")

    with pytest.raises(ValueError, match="part 2"):
        side_by_side(work, range(20), CPU)
    assert torch.get_num_threads() == threads


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
