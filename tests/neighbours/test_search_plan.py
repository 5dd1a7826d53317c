"""The kind of search that `auto` takes, and what is refused."""

import pytest

from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.errors import StageError
from sracl_dist.neighbours.plan import code_bytes, default_num_lists, plan_search

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("num_rows", "width", "budget_gb", "has_gpu", "kind"),
    [
        (30_000, 384, 8, False, "exact"),
        (200_000, 384, 8, False, "exact"),
        (MILLION, 384, 8, False, "ivf"),
        (MILLION, 384, 8, True, "exact"),
        (MILLION, 384, 3.5, False, "ivf_sq8"),
        (MILLION, 384, 1.5, False, "ivf_pq"),
        (200_000, 384, 0.75, False, "ivf_pq"),
    ],
)
def test_auto_takes_the_most_exact_kind_that_is_affordable(
    num_rows: int, width: int, budget_gb: float, has_gpu: bool, kind: str
) -> None:
    settings = NeighboursConfig(budget_bytes=int(budget_gb * 1e9))
    plan = plan_search(settings, num_rows, width, has_gpu=has_gpu)
    assert plan.kind == kind
    assert plan.part_bytes <= settings.budget_bytes
    assert plan.on_disk == (kind == "ivf_pq")


def test_small_tables_are_searched_exactly() -> None:
    for num_rows, kind in ((1023, "exact"), (1024, "ivf_pq")):
        assert plan_search(NeighboursConfig(index="ivf_pq"), num_rows, 8, has_gpu=False).kind == kind


def test_more_parts_need_less_memory_each() -> None:
    one = plan_search(NeighboursConfig(index="exact"), MILLION, 384, has_gpu=False)
    four = plan_search(NeighboursConfig(index="exact", num_index_shards=4), MILLION, 384, has_gpu=False)
    assert one.part_bytes - four.part_bytes == pytest.approx(0.75 * MILLION * 384 * 4)


def test_what_cannot_fit_is_refused_with_what_to_do() -> None:
    settings = NeighboursConfig(index="exact", budget_bytes=1_000_000_000)
    with pytest.raises(StageError, match=r"A part of 1,000,000 vectors needs .*num_index_shards=1, or lower n"):
        plan_search(settings, MILLION, 384, has_gpu=False)
    with pytest.raises(StageError, match=r"more than neighbours\.budget_bytes=500,000,000"):
        plan_search(NeighboursConfig(budget_bytes=500_000_000), MILLION, 384, has_gpu=False)


def test_lists_and_codes() -> None:
    assert default_num_lists(MILLION) == 4096
    assert default_num_lists(1) == 1
    assert default_num_lists(1000) == 16
    assert [code_bytes(width, has_gpu=False) for width in (384, 128, 6, 7, 1)] == [96, 32, 1, 1, 1]
    plan = plan_search(NeighboursConfig(index="ivf_pq", num_lists=100), MILLION, 128, has_gpu=False)
    assert (plan.num_lists, plan.num_codes, plan.num_sampled) == (100, 32, 6400)
    assert plan_search(NeighboursConfig(index="ivf_pq", num_lists=1), MILLION, 128, has_gpu=False).num_sampled == 256


@pytest.mark.parametrize(
    ("width", "on_cpu", "on_gpu"), [(384, 96, 96), (512, 128, 64), (768, 192, 96), (1024, 256, 64), (100, 25, 20)]
)
def test_codes_of_a_gpu_are_short(width: int, on_cpu: int, on_gpu: int) -> None:
    settings = NeighboursConfig(index="ivf_pq", num_lists=100)
    plans = [plan_search(settings, MILLION, width, has_gpu=has_gpu) for has_gpu in (False, True)]
    assert [plan.num_codes for plan in plans] == [on_cpu, on_gpu]
