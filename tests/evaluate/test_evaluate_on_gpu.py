"""Ranks and lists made on a GPU are exactly those of the definition."""

import numpy as np
import pytest
import torch
from dense_scores import dense_scores
from numpy.typing import NDArray
from on_gpu import GPU, needs_gpu

from sracl_dist.config.sections import ModelConfig
from sracl_dist.evaluate.best import best_items
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores
from sracl_dist.model.encoders import SequenceEncoder, inference_encoder

pytestmark = needs_gpu
NUM_USERS, NUM_ITEMS, NUM_BEST = 5000, 40_000, 20  # more than one chunk and more than one tile


@pytest.fixture(scope="module")
def encoder() -> SequenceEncoder:
    """Every representation is there twice, so that ties are everywhere."""
    torch.manual_seed(0)
    encoder = inference_encoder(ModelConfig(width=32, num_heads=2, max_length=10, repeat_bias=True), NUM_ITEMS)
    for parameter in encoder.parameters():  # initial ones are so small that a mistake could hide in rounding
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    table_VD = encoder.catalogue.get_buffer("table_VD")
    table_VD[1:] = torch.randn(NUM_ITEMS // 2, 32).repeat(2, 1)
    return encoder.to(GPU)


@pytest.fixture(scope="module")
def contexts() -> list[NDArray[np.int32]]:
    random = np.random.default_rng(0)
    return [random.integers(1, NUM_ITEMS + 1, random.integers(1, 30)).astype(np.int32) for _ in range(NUM_USERS)]


def test_ranks_are_exact(encoder: SequenceEncoder, contexts: list[NDArray[np.int32]]) -> None:
    random = np.random.default_rng(1)
    targets = random.integers(1, NUM_ITEMS + 1, NUM_USERS).astype(np.int32)
    targets[::10] = [context[0] for context in contexts[::10]]
    ranks = rank_targets(CatalogueScores(encoder, GPU), contexts, targets)
    for start in range(0, NUM_USERS, 500):
        own = slice(start, start + 500)
        scores_BV = dense_scores(encoder, contexts[own])
        columns_B = torch.from_numpy(targets[own].astype(np.int64) - 1).to(GPU)
        # In float64 sums differ in their last bits with the order of their terms, and scores are of the order of 10.
        reaches_BV = scores_BV >= scores_BV.gather(1, columns_B[:, None]) - 1e-12
        kept_B = reaches_BV.sum(dim=1).cpu().numpy()
        assert np.array_equal(ranks.seen_kept[own], kept_B)
        for row, context in enumerate(contexts[own]):
            reaches_BV[row, torch.from_numpy(np.unique(context).astype(np.int64) - 1).to(GPU)] = False
        removed_B = reaches_BV.sum(dim=1).cpu().numpy()
        is_new_B = [target not in context for target, context in zip(targets[own], contexts[own], strict=True)]
        assert np.array_equal(ranks.seen_removed[own], np.where(is_new_B, removed_B, NUM_ITEMS + 1))


@pytest.mark.parametrize("remove_seen", [True, False])
def test_lists_are_exact(encoder: SequenceEncoder, contexts: list[NDArray[np.int32]], remove_seen: bool) -> None:
    best = best_items(CatalogueScores(encoder, GPU), contexts, NUM_BEST, remove_seen=remove_seen)
    assert (best.lengths == NUM_BEST).all()
    items_UN, scores_UN = (values.reshape(NUM_USERS, NUM_BEST) for values in (best.items, best.scores))
    for start in range(0, NUM_USERS, 500):
        own = slice(start, start + 500)
        scores_BV = dense_scores(encoder, contexts[own])
        if remove_seen:
            for row, context in enumerate(contexts[own]):
                scores_BV[row, torch.from_numpy(context.astype(np.int64) - 1).to(GPU)] = -torch.inf
        expected_BN = scores_BV.topk(NUM_BEST, dim=1).values.float().cpu().numpy()
        assert scores_UN[own] == pytest.approx(expected_BN, rel=1e-6)
        found_BN = scores_BV.gather(1, torch.from_numpy(items_UN[own] - 1).to(GPU)).float().cpu().numpy()
        assert scores_UN[own] == pytest.approx(found_BN, rel=1e-6)
    assert (np.diff(scores_UN, axis=1) <= 0).all()
    for items_N, context in zip(items_UN.tolist(), contexts, strict=True):
        assert len(set(items_N)) == NUM_BEST
        for item in items_N:  # the lower of two with the same representation comes first, where the bias is for neither
            twin = item - NUM_ITEMS // 2
            if twin > 0 and not {item, twin} & set(context.tolist()):
                assert items_N.index(twin) < items_N.index(item)
