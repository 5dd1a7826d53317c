import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from sracl_dist.config.sections import ModelConfig
from sracl_dist.errors import StageError
from sracl_dist.evaluate.ranking import catalogue_scores, rank_targets
from sracl_dist.model import softmax
from sracl_dist.model.catalogue import FixedCatalogue
from sracl_dist.model.encoders import SequenceEncoder
from sracl_dist.model.encoders.interface import REPEAT_UNIT
from sracl_dist.model.rows import Rows

CPU = torch.device("cpu")


class Scripted(SequenceEncoder):
    """Scores are given: the state at an item of user u is the unit vector of u, the representations hold the scores."""

    def __init__(
        self, scores_UV: NDArray[np.float32], contexts: list[NDArray[np.int32]], repeat_bias: float | None = None
    ) -> None:
        config = ModelConfig(width=len(scores_UV), max_length=3, repeat_bias=repeat_bias is not None)
        super().__init__(config, FixedCatalogue(config, scores_UV.shape[1]))
        self._latest = [tuple(context[-3:].tolist()) for context in contexts]
        self.catalogue.table_VD[1:] = torch.from_numpy(scores_UV).T
        if self.repeat_units is not None and repeat_bias is not None:
            self.repeat_units.data.fill_(repeat_bias / REPEAT_UNIT)

    def forward(self, rows: Rows, table_VD: Tensor) -> Tensor:
        users = [self._latest.index(tuple(items.tolist())) for items in rows.items_T.split(rows.lengths_B.tolist())]
        return torch.eye(len(self._latest))[torch.tensor(users).repeat_interleave(rows.lengths_B)]


def brute_force(scores_V: NDArray[np.float32], target: int, removed: set[int]) -> int:
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

    ranks = rank_targets(Scripted(scores, contexts, repeat_bias), contexts, targets, CPU)
    for user, (context, target) in enumerate(zip(contexts, targets.tolist(), strict=True)):
        seen = set(context.tolist())
        own = scores[user].copy()
        for other in seen:  # once each, however often it is there, and also where the encoder no longer sees it
            own[other - 1] += repeat_bias or 0.0
        assert ranks.seen_kept[user] == brute_force(own, target, set())
        assert ranks.seen_removed[user] == brute_force(own, target, seen)
        if target not in seen:
            assert ranks.seen_removed[user] == brute_force(scores[user], target, seen)


def test_only_items_of_the_context_get_the_repeat_bias() -> None:
    contexts = [np.array([2, 2, 4, 2, 1, 1, 1], np.int32), np.array([3], np.int32)]
    scores = np.arange(10, dtype=np.float32).reshape(2, 5)
    ((_, plain, _),) = catalogue_scores(Scripted(scores, contexts), contexts, CPU)
    ((_, biased, seen),) = catalogue_scores(Scripted(scores, contexts, 10.0), contexts, CPU)
    assert (biased - plain).tolist() == [[10, 10, 0, 10, 0], [0, 0, 10, 0, 0]]
    assert sorted(zip(*(part.tolist() for part in seen), strict=True)) == [(0, 0), (0, 1), (0, 3), (1, 2)]


def test_chunks_do_not_change_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)
    contexts = [np.array([user + 1, user + 2], np.int32) for user in range(7)]
    targets = np.arange(1, 8, dtype=np.int32)
    whole = rank_targets(Scripted(scores, contexts), contexts, targets, CPU)
    monkeypatch.setattr(softmax, "SCORES_PER_CHUNK", 24)
    monkeypatch.setattr(softmax, "LEAST_ROWS", 1)
    parts = rank_targets(Scripted(scores, contexts), contexts, targets, CPU)
    assert parts.seen_kept.tolist() == whole.seen_kept.tolist()
    assert parts.seen_removed.tolist() == whole.seen_removed.tolist()
    assert (whole.seen_removed == 12).tolist() == [True] * 7  # each target is the first item of its context


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(wrong: float) -> None:
    contexts = [np.array([1], np.int32)]
    encoder = Scripted(np.array([[0.0, wrong]], np.float32), contexts)
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
