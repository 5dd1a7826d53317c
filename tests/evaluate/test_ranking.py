"""Ranks against brute force: ties, tiles, repeats; see test_scores.py for what a score is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scripted_encoder import CPU, Scripted, Stated

from sracl_dist.evaluate import blocks
from sracl_dist.evaluate import scores as tiles
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores


def brute_force(scores_V: NDArray[np.floating], target: int, removed: set[int]) -> int:
    if target in removed:
        return len(scores_V) + 1
    others = set(range(1, len(scores_V) + 1)) - removed - {target}
    return 1 + sum(bool(scores_V[item - 1] >= scores_V[target - 1]) for item in others)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(2, 9), st.integers(1, 6), st.sampled_from([None, 0.0, 1.5, -0.5, -50.0]))
def test_ranks_equal_brute_force(
    data: st.DataObject, num_items: int, num_users: int, repeat_bias: float | None
) -> None:
    # Few different scores make ties common, with the bias too; contexts repeat items and may hold the target.
    item = st.integers(1, num_items)
    histories = st.lists(item, min_size=1, max_size=7)
    drawn = data.draw(
        st.lists(histories, min_size=num_users, max_size=num_users, unique_by=lambda history: tuple(history[-3:]))
    )
    contexts = [np.array(history, np.int32) for history in drawn]
    num_users = len(contexts)
    targets = np.array(data.draw(st.lists(item, min_size=num_users, max_size=num_users)), np.int32)
    score = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    row = st.lists(score, min_size=num_items, max_size=num_items)
    scores = np.array(data.draw(st.lists(row, min_size=num_users, max_size=num_users)), np.float32)

    ranks = rank_targets(CatalogueScores(Scripted(scores, contexts, repeat_bias), CPU), contexts, targets)
    for user, (context, target) in enumerate(zip(contexts, targets.tolist(), strict=True)):
        seen = set(context.tolist())
        own = scores[user].copy()
        for other in seen:  # once each, however often it is there, and also where the encoder no longer sees it
            own[other - 1] += repeat_bias or 0.0
        assert ranks.seen_kept[user] == brute_force(own, target, set())
        assert ranks.seen_removed[user] == brute_force(own, target, seen)
        if target not in seen:
            assert ranks.seen_removed[user] == brute_force(scores[user], target, seen)


@pytest.mark.parametrize("num_items", [1, 7, 8, 9, 100])
@pytest.mark.parametrize("chunk_users", [1, 5, 64])
@pytest.mark.parametrize("pending", [0, 1_000_000])
def test_tiles_do_not_change_ranks(
    monkeypatch: pytest.MonkeyPatch, num_items: int, chunk_users: int, pending: int
) -> None:
    """Tiles of 8 items: fewer, as many, one more, and many that do not divide the catalogue."""
    random = np.random.default_rng(num_items)
    # Rows come twice and more often, far apart, so that a target ties with items of other tiles.
    rows = random.normal(size=(max(1, num_items // 3), 16))[np.arange(num_items) % max(1, num_items // 3)]
    encoder = Stated(random.normal(size=(23, 16)), rows, repeat_bias=0.1)
    contexts = [np.array([user + 1, *random.integers(1, 24, 3)], np.int32) for user in range(23)]
    contexts = [np.minimum(context, num_items) for context in contexts]
    targets = random.integers(1, num_items + 1, 23).astype(np.int32)
    states = encoder.states(contexts)
    monkeypatch.setattr(tiles, "TILE_ITEMS", 8)
    monkeypatch.setattr(blocks, "BLOCK_ITEMS", 4)
    monkeypatch.setattr(tiles, "CHUNK_USERS", chunk_users)
    monkeypatch.setattr(tiles, "PAIRS_AT_A_TIME", 5)
    monkeypatch.setattr(blocks, "WAITING_BLOCKS", pending)
    scores = CatalogueScores(encoder, CPU)
    ranks = rank_targets(scores, contexts, targets)
    for user, (context, target) in enumerate(zip(contexts, targets.tolist(), strict=True)):
        # Along a row numpy adds in one order, so equal rows have equal scores.
        own = (states[user].astype(np.float64) * rows.astype(np.float32)).sum(axis=1)
        assert ranks.seen_removed[user] == brute_force(own, target, set(context.tolist()))
        own[np.unique(context) - 1] += scores.repeat_bias
        assert ranks.seen_kept[user] == brute_force(own, target, set())


def test_equal_representations_tie_wherever_they_stand() -> None:
    """A product's last bit may depend on where in a tile an item is; half of 5,001 items are the target's equals."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(5001, 48))
    rows[::2] = rows[0]
    encoder = Stated(random.normal(size=(40, 48)), rows)
    contexts = [np.array([2 * user + 2], np.int32) for user in range(40)]  # an even item, which is no equal
    targets = (1 + 2 * random.integers(0, 2501, 40)).astype(np.int32)
    ranks = rank_targets(CatalogueScores(encoder, CPU), contexts, targets)
    states = encoder.states(contexts).astype(np.float64)
    for user in range(40):
        own = (states[user] * rows.astype(np.float32)).sum(axis=1)
        assert ranks.seen_kept[user] == int((own[1::2] > own[0]).sum()) + 2501
        assert ranks.seen_kept[user] - ranks.seen_removed[user] == int(own[contexts[user][0] - 1] > own[0])


def test_a_difference_that_float32_cannot_hold_is_no_tie() -> None:
    """Scores of 1 and of 1 + 2^-30: in float32 both are 1."""
    small = 2.0**-15
    rows = np.array([[1, 0], [1, small], [1, -small], [1, 0]])
    encoder = Stated(np.array([[1, small]]), rows)
    contexts = [np.array([3], np.int32)]
    ranks = [rank_targets(CatalogueScores(encoder, CPU), contexts, np.array([item], np.int32)) for item in (1, 2, 3, 4)]
    assert [int(own.seen_kept[0]) for own in ranks] == [3, 1, 4, 3]
    assert [int(own.seen_removed[0]) for own in ranks] == [3, 1, 5, 3]


def test_states_of_zero_tie_with_everything() -> None:
    encoder = Stated(np.zeros((1, 4)), np.random.default_rng(0).normal(size=(30, 4)))
    ranks = rank_targets(CatalogueScores(encoder, CPU), [np.array([1, 2], np.int32)], np.array([9], np.int32))
    assert (ranks.seen_kept.tolist(), ranks.seen_removed.tolist()) == ([30], [28])


def test_nobody_gives_no_rank() -> None:
    encoder = Scripted(np.zeros((1, 2), np.float32), [np.array([1], np.int32)])
    assert len(rank_targets(CatalogueScores(encoder, CPU), [], np.zeros(0, np.int32)).seen_kept) == 0
