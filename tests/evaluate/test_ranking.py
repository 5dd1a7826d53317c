import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synthetic import make_config
from torch import Tensor

from sracl_dist.errors import StageError
from sracl_dist.evaluate import ranking
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.model.encoders import SequenceEncoder

CPU = torch.device("cpu")


class Scripted(SequenceEncoder):
    """Scores are given: the state at an item of user u is the unit vector of u, the embeddings hold the scores."""

    def __init__(self, scores_UV: NDArray[np.float32], contexts: list[NDArray[np.int32]]) -> None:
        config = make_config().model
        config.width, config.max_length = len(scores_UV), 3
        super().__init__(config, scores_UV.shape[1])
        self._latest = [tuple(context[-3:].tolist()) for context in contexts]
        with torch.no_grad():
            self.item_embedding.weight[1:] = torch.from_numpy(scores_UV).T

    def forward(self, items_BL: Tensor) -> Tensor:
        states = torch.zeros(*items_BL.shape, len(self._latest))
        for row, items in enumerate(items_BL.tolist()):
            user = self._latest.index(tuple(item for item in items if item))
            states[row, :, user] = 1.0
        return states


def brute_force(scores_V: NDArray[np.float32], target: int, removed: set[int]) -> int:
    if target in removed:
        return len(scores_V) + 1
    others = set(range(1, len(scores_V) + 1)) - removed - {target}
    return 1 + sum(bool(scores_V[item - 1] >= scores_V[target - 1]) for item in others)


@settings(max_examples=120, deadline=None)
@given(st.data(), st.integers(2, 9), st.integers(1, 6))
def test_ranks_equal_brute_force(data: st.DataObject, num_items: int, num_users: int) -> None:
    # Few different scores make ties common; contexts repeat items and may hold the target.
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

    ranks = rank_targets(Scripted(scores, contexts), contexts, targets, CPU)
    for user, (context, target) in enumerate(zip(contexts, targets.tolist(), strict=True)):
        assert ranks.seen_kept[user] == brute_force(scores[user], target, set())
        assert ranks.seen_removed[user] == brute_force(scores[user], target, set(context.tolist()))


def test_chunks_do_not_change_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    contexts = [np.array([user + 1, user + 2], np.int32) for user in range(7)]
    targets = np.arange(1, 8, dtype=np.int32)
    whole = rank_targets(Scripted(scores, contexts), contexts, targets, CPU)
    monkeypatch.setattr(ranking, "SCORES_PER_CHUNK", 22)
    parts = rank_targets(Scripted(scores, contexts), contexts, targets, CPU)
    assert parts.seen_kept.tolist() == whole.seen_kept.tolist()
    assert parts.seen_removed.tolist() == whole.seen_removed.tolist()
    assert (whole.seen_removed == 12).tolist() == [True] * 7  # each target is the first item of its context


def test_scores_that_are_no_numbers_are_refused() -> None:
    contexts = [np.array([1], np.int32)]
    encoder = Scripted(np.array([[0.0, np.nan]], np.float32), contexts)
    with pytest.raises(StageError, match="scores that are not numbers"):
        rank_targets(encoder, contexts, np.array([1], np.int32), CPU)


def test_nobody_gives_no_rank() -> None:
    encoder = Scripted(np.zeros((1, 2), np.float32), [np.array([1], np.int32)])
    assert len(rank_targets(encoder, [], np.zeros(0, np.int32), CPU).seen_kept) == 0


def test_the_encoder_returns_to_its_mode() -> None:
    contexts = [np.array([1], np.int32)]
    encoder = Scripted(np.zeros((1, 2), np.float32), contexts).train()
    rank_targets(encoder, contexts, np.array([1], np.int32), CPU)
    assert encoder.training
