import threading
from contextlib import closing

import pytest

from sracl_dist.train.prefetch import NUM_AHEAD, made_ahead

BATCHES = "batches"


def batch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith(BATCHES)]


@pytest.mark.parametrize("num", [0, 1, 2, 3, 10])
def test_everything_comes_in_order(num: int) -> None:
    assert list(made_ahead(lambda one: one * one, range(num))) == [one * one for one in range(num)]
    assert not batch_threads()


def test_the_next_ones_are_made_while_one_is_used() -> None:
    made, reached = [], threading.Event()

    def make(one: int) -> int:
        made.append(one)
        if one == NUM_AHEAD:
            reached.set()
        return one

    with closing(made_ahead(make, range(100))) as results:
        assert next(results) == 0
        assert reached.wait(timeout=20)  # though nobody has asked for it
        assert made == list(range(NUM_AHEAD + 1))  # and no more than these
    assert not batch_threads()


def test_an_error_comes_in_the_place_of_its_result() -> None:
    results = made_ahead(lambda one: 6 // one, [3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not batch_threads()
