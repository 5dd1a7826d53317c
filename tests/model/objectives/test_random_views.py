import math
from collections import Counter
from fractions import Fraction

import pytest
import torch

from sracl_dist.columns import PAD
from sracl_dist.config.sections import RandomViewsConfig
from sracl_dist.model.objectives import random_views
from sracl_dist.model.objectives.random_views import CROP, MASK, REORDER, augmented
from sracl_dist.model.rows import Rows

SHARES = ("0.6", "0.3", "1", "0", "0.29")
"""0.29 x 100 is a rounding below 29."""


def numbered(lengths: list[int]) -> Rows:
    return Rows(items_T=torch.arange(1, sum(lengths) + 1), lengths_B=torch.tensor(lengths, dtype=torch.int64))


def views_of(
    monkeypatch: pytest.MonkeyPatch, operator: int, share: str, lengths: list[int]
) -> list[tuple[list[int], list[int]]]:
    """Each row and its view by this operator."""
    monkeypatch.setattr(random_views.torch, "randint", lambda _high, size: torch.full(size, operator))
    settings = RandomViewsConfig(crop_share=float(share), mask_share=float(share), reorder_share=float(share))
    rows = numbered(lengths)
    view = augmented(rows, settings)
    assert len(view) == len(rows)
    assert view.lengths_B.min() >= 1
    own = [items.tolist() for items in rows.items_T.split(lengths)]
    return list(zip(own, [items.tolist() for items in view.items_T.split(view.lengths_B.tolist())], strict=True))


def part(share: str, num: int) -> int:
    """Share of a number, rounded down, without a rounding of its own."""
    return math.floor(Fraction(share) * num)


@pytest.mark.parametrize("share", SHARES)
def test_crop_keeps_one_piece(monkeypatch: pytest.MonkeyPatch, share: str) -> None:
    for own, view in views_of(monkeypatch, CROP, share, [*range(1, 61), 100] * 2):
        assert len(view) == max(1, part(share, len(own)))
        assert view == list(range(view[0], view[0] + len(view)))
        assert own[0] <= view[0] <= view[-1] <= own[-1]


@pytest.mark.parametrize("share", SHARES)
def test_mask_hides_a_part_and_leaves_its_place(monkeypatch: pytest.MonkeyPatch, share: str) -> None:
    for own, view in views_of(monkeypatch, MASK, share, [*range(1, 61), 100] * 2):
        assert len(view) == len(own)
        assert view.count(PAD) == part(share, len(own))
        assert all(item in (PAD, before) for item, before in zip(view, own, strict=True))


@pytest.mark.parametrize("share", SHARES)
def test_reorder_permutes_one_stretch(monkeypatch: pytest.MonkeyPatch, share: str) -> None:
    for own, view in views_of(monkeypatch, REORDER, share, [*range(1, 61), 100] * 2):
        assert sorted(view) == own
        moved = [place for place, (item, before) in enumerate(zip(view, own, strict=True)) if item != before]
        assert not moved or moved[-1] - moved[0] < part(share, len(own))


def test_pieces_lie_anywhere_and_permutations_are_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    num = 6000
    crops = Counter(view[0] - own[0] for own, view in views_of(monkeypatch, CROP, "0.6", [5] * num))
    assert sorted(crops) == [0, 1, 2]
    assert list(crops.values()) == pytest.approx([num / 3] * 3, rel=0.1)
    masks = [view.index(PAD) for _, view in views_of(monkeypatch, MASK, "0.3", [4] * num)]
    assert [masks.count(place) for place in range(4)] == pytest.approx([num / 4] * 4, rel=0.1)
    # A stretch of three out of four: two stretches, and of both the order in which nothing has moved.
    orders = Counter(
        tuple(item - own[0] for item in view) for own, view in views_of(monkeypatch, REORDER, "0.75", [4] * num)
    )
    assert len(orders) == 10
    assert orders[0, 1, 2, 3] == pytest.approx(num / 6, rel=0.15)
    assert orders[0, 2, 1, 3] == pytest.approx(num / 6, rel=0.15)
    assert [orders[2, 1, 0, 3], orders[0, 3, 2, 1]] == pytest.approx([num / 12] * 2, rel=0.2)


def test_the_operators_are_drawn_alike_for_each_row() -> None:
    view = augmented(numbered([10] * 3000), RandomViewsConfig(crop_share=0.5, mask_share=0.5, reorder_share=1.0))
    kinds = Counter(
        CROP if len(items) == 5 else MASK if PAD in items else REORDER
        for items in (row.tolist() for row in view.items_T.split(view.lengths_B.tolist()))
    )
    assert [kinds[kind] for kind in (CROP, MASK, REORDER)] == pytest.approx([1000] * 3, rel=0.1)


def test_no_rows_have_no_views() -> None:
    assert len(augmented(numbered([]), RandomViewsConfig())) == 0
