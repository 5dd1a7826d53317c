from collections import Counter
from typing import cast

import pytest
import torch
from synthetic import NUM_ITEMS, enlarge, make_config

from sracl_dist.columns import MISSING
from sracl_dist.config import Config
from sracl_dist.config.sections import Similarity
from sracl_dist.model.inputs import Batch
from sracl_dist.model.item_table import ItemTable
from sracl_dist.model.losses import info_nce
from sracl_dist.model.objectives import Encoded
from sracl_dist.model.objectives.interface import two_view_contrast
from sracl_dist.model.objectives.intra_sequence import IntraSequence
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables


@pytest.mark.parametrize("rate", [0.0, 0.2, 1.0])
def test_substitution_rate_and_membership(config: Config, tables: SemanticTables, rate: float) -> None:
    config.objectives.intra_sequence.replacement_rate = rate
    objective = IntraSequence(config, tables)
    items = torch.randint(1, NUM_ITEMS + 1, (40_000,))
    view = objective.substituted(items)
    assert view.min() >= 1
    has_neighbours = torch.from_numpy((tables.item_neighbours != MISSING).any(axis=1))[items]
    assert not has_neighbours.all()
    assert torch.equal(view[~has_neighbours], items[~has_neighbours])
    changed = view != items
    assert float(changed[has_neighbours].float().mean()) == pytest.approx(rate, abs=0.01)
    for item, replacement in zip(items[changed].tolist(), view[changed].tolist(), strict=True):
        assert replacement in tables.item_neighbours[item]
        assert replacement != MISSING


def test_every_neighbour_is_drawn_about_equally_often(config: Config, tables: SemanticTables) -> None:
    config.objectives.intra_sequence.replacement_rate = 1.0
    drawn = Counter(IntraSequence(config, tables).substituted(torch.full((40_000,), 5)).tolist())
    assert sorted(drawn) == sorted(tables.item_neighbours[5].tolist())
    assert list(drawn.values()) == pytest.approx([10_000] * 4, rel=0.05)


def test_only_the_nearest_so_many_are_drawn(config: Config, tables: SemanticTables) -> None:
    config.objectives.intra_sequence.replacement_rate = 1.0
    config.objectives.intra_sequence.num_neighbours = 2
    drawn = IntraSequence(config, tables).substituted(torch.full((1000,), 5))
    assert set(drawn.tolist()) == set(tables.item_neighbours[5, :2].tolist())


def test_missing_neighbours_may_stand_anywhere_in_a_list(config: Config, tables: SemanticTables) -> None:
    config.objectives.intra_sequence.replacement_rate = 1.0
    tables.item_neighbours[7] = [MISSING, 9, MISSING, 11]
    drawn = IntraSequence(config, tables).substituted(torch.full((1000,), 7))
    assert set(drawn.tolist()) == {9, 11}


def test_random_neighbours_are_others_of_the_same_number(config: Config, tables: SemanticTables) -> None:
    config.objectives.intra_sequence.replacement_rate = 1.0
    config.objectives.intra_sequence.neighbours = "random"
    objective = IntraSequence(config, tables)
    numbers = (tables.item_neighbours != MISSING).sum(axis=1)
    assert objective.num_neighbours_V.tolist() == numbers.tolist()
    semantic = 0
    for item in range(1, NUM_ITEMS + 1):
        drawn = set(objective.substituted(torch.full((200,), item)).tolist())
        assert (item in drawn) == (numbers[item] == 0)
        semantic += bool(drawn & set(tables.item_neighbours[item].tolist()))
    assert semantic < NUM_ITEMS / 2


def test_both_views_are_of_every_history_in_order(config: Config, tables: SemanticTables, batch: Batch) -> None:
    rows = batch.rows.select(batch.histories_H)
    config.objectives.intra_sequence.replacement_rate = 0.5
    view = IntraSequence(config, tables).views(batch).rows
    assert view.lengths_B.tolist() == rows.lengths_B.tolist() * 2
    first, second = view.items_T.chunk(2)
    for one in (first, second):
        kept = one == rows.items_T
        assert 0.3 < float(kept.float().mean()) < 0.8
    assert not torch.equal(first, second)
    config.objectives.intra_sequence.replacement_rate = 0.0
    assert torch.equal(IntraSequence(config, tables).views(batch).rows.items_T, rows.items_T.repeat(2))


def plain_contrast(first: torch.Tensor, second: torch.Tensor, similarity: Similarity) -> float:
    """Anchor by anchor: the other view against all views of the other histories."""
    num = len(first)
    total = 0.0
    for anchors, others in ((first, second), (second, first)):
        for index in range(num):
            rest = [place for place in range(num) if place != index]
            candidates = torch.cat([others[[index]], anchors[rest], others[rest]])
            loss = info_nce(anchors[[index]], candidates, torch.tensor([0]), similarity=similarity, temperature=0.4)
            total += float(loss.detach())
    return total / (2 * num)


@pytest.mark.parametrize("similarity", ["cosine", "inner_product"])
def test_the_contrast_is_between_the_last_states_of_both_views(
    tables: SemanticTables, batch: Batch, similarity: Similarity
) -> None:
    config = make_config("unused", "objectives.terms=[next_item,intra_sequence]")
    config.objectives.intra_sequence.similarity, config.objectives.intra_sequence.temperature = similarity, 0.4
    model = SraCl(config, tables).eval()
    enlarge(model.encoder)
    term = cast(IntraSequence, model.objective("intra_sequence"))
    views = term.views(batch)
    table = model.encoder.catalogue()
    states = model.encoder(views.rows, table)
    encoded = Encoded(
        encoder=model.encoder, table=ItemTable(rows_ND=table), states_TD=states[:0], view_states_TD=states
    )
    last = [part[-1] for part in states.split(views.rows.lengths_B.tolist())]
    num = len(batch.histories_H)
    expected = plain_contrast(torch.stack(last[:num]), torch.stack(last[num:]), similarity)
    assert float(term(batch, views, encoded).detach()) == pytest.approx(expected, rel=1e-4)


def test_a_history_alone_has_nothing_to_contrast_with(config: Config) -> None:
    first, second = torch.randn(1, 4), torch.randn(1, 4)
    loss = two_view_contrast(first, second, [1], 0, config.objectives.intra_sequence)
    assert float(loss) == pytest.approx(0.0, abs=1e-6)
