"""Lists of the best items against a full sort: ties, tiles, seen items, repeats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scripted_encoder import CPU, Scripted, Stated
from torch import Tensor

from sracl_dist.evaluate import best as lists
from sracl_dist.evaluate import blocks
from sracl_dist.evaluate import scores as tiles
from sracl_dist.evaluate.best import Best, best_items
from sracl_dist.evaluate.scores import CatalogueScores, Chunk


def by_sorting(scores_V: NDArray[np.floating], removed: set[int], num_best: int) -> list[int]:
    """By falling score, ties by rising item."""
    candidates = set(range(1, len(scores_V) + 1)) - removed
    return sorted(candidates, key=lambda item: (-scores_V[item - 1], item))[:num_best]


def split(best: Best) -> list[tuple[list[int], list[float]]]:
    assert best.lengths.sum() == len(best.items) == len(best.scores)
    ends = np.cumsum(best.lengths)[:-1]
    pairs = zip(np.split(best.items, ends), np.split(best.scores, ends), strict=True)
    return [(items.tolist(), scores.tolist()) for items, scores in pairs]


@settings(max_examples=150, deadline=None)
@given(
    st.data(),
    st.integers(1, 12),
    st.integers(1, 5),
    st.sampled_from([None, 0.0, 1.5, -0.5, -50.0]),
    st.integers(1, 13),
    st.booleans(),
    st.integers(1, 5),
)
def test_lists_equal_brute_force(
    data: st.DataObject,
    num_items: int,
    num_users: int,
    repeat_bias: float | None,
    num_best: int,
    remove_seen: bool,
    tile_items: int,
) -> None:
    item = st.integers(1, num_items)
    histories = st.lists(item, min_size=1, max_size=7)
    drawn = data.draw(st.lists(histories, min_size=1, max_size=num_users, unique_by=lambda own: tuple(own[-3:])))
    contexts = [np.array(history, np.int32) for history in drawn]
    row = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=num_items, max_size=num_items)
    scores = np.array(data.draw(st.lists(row, min_size=len(drawn), max_size=len(drawn))), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_ITEMS", tile_items)
        patch.setattr(tiles, "CHUNK_USERS", 2)
        patch.setattr(lists, "PENDING_PER_PLACE", data.draw(st.sampled_from([0, 1, 4])))
        patch.setattr(blocks, "WAITING_BLOCKS", data.draw(st.sampled_from([0, 5, 4096])))
        encoder = Scripted(scores, contexts, repeat_bias)
        found = split(best_items(CatalogueScores(encoder, CPU), contexts, num_best, remove_seen=remove_seen))
    for own_scores, context, (items, values) in zip(scores, contexts, found, strict=True):
        seen = set(context.tolist())
        biased = own_scores.astype(np.float64)
        biased[[other - 1 for other in seen]] += repeat_bias or 0.0
        assert items == by_sorting(biased, seen if remove_seen else set(), num_best)
        assert values == biased[[each - 1 for each in items]].astype(np.float32).tolist()


@pytest.mark.parametrize("remove_seen", [True, False])
@pytest.mark.parametrize("num_best", [1, 20, 200])
@pytest.mark.parametrize("pending", [0, 1, 1000])
def test_equal_representations_come_by_rising_item(
    monkeypatch: pytest.MonkeyPatch, remove_seen: bool, num_best: int, pending: int
) -> None:
    """Every representation is there nine times, in tiles of 128 items; a list ends among equals."""
    random = np.random.default_rng(num_best)
    rows = np.tile(random.normal(size=(300, 32)), (9, 1))[random.permutation(2700)]
    encoder = Stated(random.normal(size=(17, 32)), rows, 0.5)
    contexts = [np.concatenate([random.integers(1, 2701, 40), [user + 1]]).astype(np.int32) for user in range(17)]
    monkeypatch.setattr(tiles, "TILE_ITEMS", 128)
    monkeypatch.setattr(blocks, "BLOCK_ITEMS", 32)
    monkeypatch.setattr(tiles, "CHUNK_USERS", 7)
    monkeypatch.setattr(lists, "PENDING_PER_PLACE", pending)
    monkeypatch.setattr(blocks, "WAITING_BLOCKS", pending)
    found = split(best_items(CatalogueScores(encoder, CPU), contexts, num_best, remove_seen=remove_seen))
    states = encoder.states(contexts).astype(np.float64)
    for state, context, (items, _) in zip(states, contexts, found, strict=True):
        own = (state * rows.astype(np.float32)).sum(axis=1)
        own[np.unique(context) - 1] += 0.5
        assert items == by_sorting(own, set(context.tolist()) if remove_seen else set(), num_best)


@pytest.mark.parametrize("num_best", [1, 20])
def test_items_that_differ_less_than_products_are_in_order(monkeypatch: pytest.MonkeyPatch, num_best: int) -> None:
    """Representations that are a last bit apart here and there: the order of their products is another one."""
    random = np.random.default_rng(0)
    last_bits = 1 + 2.0**-23 * random.integers(-1, 2, size=(2000, 64))
    rows = (random.normal(size=64).astype(np.float32) * last_bits).astype(np.float32)
    encoder = Stated(random.normal(size=(12, 64)), rows)
    contexts = [np.array([user + 1], np.int32) for user in range(12)]
    monkeypatch.setattr(tiles, "TILE_ITEMS", 64)
    monkeypatch.setattr(lists, "PENDING_PER_PLACE", 0)
    monkeypatch.setattr(blocks, "WAITING_BLOCKS", 0)
    found = split(best_items(CatalogueScores(encoder, CPU), contexts, num_best, remove_seen=True))
    states = encoder.states(contexts)
    by_product = (rows @ states.T).T
    differ = 0
    for state, product, context, (items, _) in zip(states, by_product, contexts, found, strict=True):
        assert items == by_sorting((state.astype(np.float64) * rows).sum(axis=1), set(context.tolist()), num_best)
        differ += items != by_sorting(product, set(context.tolist()), num_best)
    assert differ > 6


@pytest.mark.parametrize("tile_items", [64, 2048])
def test_no_tile_is_a_candidate_as_a_whole(monkeypatch: pytest.MonkeyPatch, tile_items: int) -> None:
    """What the first tiles tell keeps nearly all items from being scored exactly."""
    random = np.random.default_rng(0)
    encoder = Stated(random.normal(size=(9, 16)), random.normal(size=(20_000, 16)))
    contexts = [np.array([user + 1], np.int32) for user in range(9)]
    monkeypatch.setattr(tiles, "TILE_ITEMS", tile_items)
    num_exact = 0

    class Counting(CatalogueScores):
        def exact(self, chunk: Chunk, users_P: Tensor, columns_P: Tensor) -> Tensor:
            nonlocal num_exact
            num_exact += len(users_P)
            return super().exact(chunk, users_P, columns_P)

    best_items(Counting(encoder, CPU), contexts, 10, remove_seen=True)
    assert 9 * 10 <= num_exact < 9 * 10 * 25


def test_nobody_gets_nothing() -> None:
    encoder = Scripted(np.zeros((1, 2), np.float32), [np.array([1], np.int32)])
    best = best_items(CatalogueScores(encoder, CPU), [], 3, remove_seen=True)
    assert len(best.items) == len(best.scores) == len(best.lengths) == 0
