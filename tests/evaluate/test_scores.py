"""What a score is: exact whatever stands beside it, a number or refused."""

import numpy as np
import pytest
import torch
from scripted_encoder import CPU, Scripted, Stated

from sracl_dist.errors import StageError
from sracl_dist.evaluate import scores as tiles
from sracl_dist.evaluate.best import best_items
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores, above, below

ONE = [np.array([1], np.int32)]


@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 100])
def test_exact_scores_are_the_same_wherever_a_pair_stands(width: int) -> None:
    random = np.random.default_rng(width)
    encoder = Stated(random.normal(size=(11, width)), random.normal(size=(50, width)))
    contexts = [np.array([user + 1], np.int32) for user in range(11)]
    scores = CatalogueScores(encoder, CPU)
    (chunk,) = scores.for_chunks(contexts, lambda chunk: chunk)
    users, columns = torch.arange(11).repeat_interleave(50), torch.arange(50).repeat(11)
    together = scores.exact(chunk, users, columns)
    alone = [float(scores.exact(chunk, users[at : at + 1], columns[at : at + 1])) for at in range(0, 550, 7)]
    assert together[::7].tolist() == alone
    products = chunk.states_BD.double()[:, None] * scores.items_VD.double()
    assert together.numpy() == pytest.approx(products.sum(dim=2).flatten().numpy(), abs=1e-14)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12])
@pytest.mark.parametrize("width", [4, 64, 300])
def test_products_lie_within_the_margin(width: int, scale: float) -> None:
    random = np.random.default_rng(0)
    encoder = Stated(random.normal(size=(9, width)) * scale, random.normal(size=(400, width)) * scale)
    contexts = [np.array([user + 1], np.int32) for user in range(9)]
    scores = CatalogueScores(encoder, CPU)
    (chunk,) = scores.for_chunks(contexts, lambda chunk: chunk)
    exact = chunk.states_BD.double() @ scores.items_VD.double().T
    ((start, products),) = scores.tiles(chunk)
    assert start == 0
    assert bool(((products.T.double() - exact).abs() <= chunk.margin_B[:, None]).all())
    assert bool((below(exact) < exact).all())
    assert bool((above(exact) > exact).all())


def test_tiles_cover_the_catalogue_once(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    encoder = Stated(random.normal(size=(5, 3)), random.normal(size=(20, 3)))
    monkeypatch.setattr(tiles, "TILE_ITEMS", 6)
    monkeypatch.setattr(tiles, "CHUNK_USERS", 2)
    contexts = [np.array([user + 1, user + 3, user + 1], np.int32) for user in range(5)]
    scores = CatalogueScores(encoder, CPU)
    found, starts = [], []
    for chunk in scores.for_chunks(contexts, lambda chunk: chunk):
        starts.append((chunk.start, len(chunk)))
        parts = [(start, tile.clone()) for start, tile in scores.tiles(chunk)]
        assert [(start, len(tile)) for start, tile in parts] == [(0, 6), (6, 6), (12, 6), (18, 2)]
        found.append(torch.cat([tile for _, tile in parts]).T)
        users, columns = chunk.seen_pairs
        own = [[chunk.start + user, chunk.start + user + 2] for user in range(len(chunk))]
        assert [columns[users == user].tolist() for user in range(len(chunk))] == own
        everyone = torch.arange(len(chunk)).repeat_interleave(20), torch.arange(20).repeat(len(chunk))
        is_seen = chunk.is_seen(*everyone).view(-1, 20)
        assert [row.nonzero().flatten().tolist() for row in is_seen] == own
    assert starts == [(0, 2), (2, 2), (4, 1)]
    expected = encoder.states(contexts) @ scores.items_VD.numpy().T
    assert torch.cat(found).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("place", ["first item", "last item", "first state", "last state"])
def test_scores_that_are_no_numbers_are_refused(monkeypatch: pytest.MonkeyPatch, wrong: float, place: str) -> None:
    """Whoever's it is, whichever tile it would be in, and also where only a sum would leave the float32."""
    monkeypatch.setattr(tiles, "TILE_ITEMS", 4)
    monkeypatch.setattr(tiles, "CHUNK_USERS", 2)
    monkeypatch.setattr(tiles, "ROWS_AT_A_TIME", 3)
    states, rows = np.full((5, 2), 2.0), np.full((11, 2), 2.0)
    (rows if "item" in place else states)[0 if "first" in place else -1, 1] = wrong
    contexts = [np.array([user + 1], np.int32) for user in range(5)]
    encoder = Stated(states, rows)
    with pytest.raises(StageError, match="scores that are not numbers"):
        rank_targets(CatalogueScores(encoder, CPU), contexts, np.full(5, 2, np.int32))
    with pytest.raises(StageError, match="scores that are not numbers"):
        best_items(CatalogueScores(encoder, CPU), contexts, 3, remove_seen=True)


@pytest.mark.parametrize("bias", [np.nan, np.inf])
def test_a_bias_that_is_no_number_is_refused(bias: float) -> None:
    with pytest.raises(StageError, match="scores that are not numbers"):
        CatalogueScores(Scripted(np.zeros((1, 2), np.float32), ONE, bias), CPU)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_encoder_returns_to_its_mode(is_training: bool) -> None:
    encoder = Scripted(np.zeros((1, 2), np.float32), ONE).train(is_training)
    rank_targets(CatalogueScores(encoder, CPU), ONE, np.array([1], np.int32))
    assert encoder.training == is_training
