from collections import Counter
from typing import cast

import numpy as np
import pytest
import torch
from synthetic import enlarge, from_histories, make_config, tables_of, write_run

from sracl_dist.columns import PAD
from sracl_dist.config.sections import Similarity
from sracl_dist.model.inputs import Batch
from sracl_dist.model.item_table import ItemTable
from sracl_dist.model.losses import info_nce
from sracl_dist.model.objectives import Encoded
from sracl_dist.model.objectives.same_target import SameTarget
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.batches import TrainingBatches

OVERRIDES = ("objectives.terms=[next_item,same_target]", "model.dropout=0", "model.attention_dropout=0")


def make_model(tables: SemanticTables, *overrides: str) -> tuple[SraCl, SameTarget]:
    model = SraCl(make_config("unused", *OVERRIDES, *overrides), tables)
    enlarge(model.encoder)
    return model, cast(SameTarget, model.objective("same_target"))


def training_targets(sequences: Sequences) -> list[tuple[int, int, list[int]]]:
    """User, target and the items before it, of every training target."""
    found = []
    for user in range(sequences.num_users):
        history = sequences.training(user).tolist()
        found += [(user, history[place], history[:place]) for place in range(1, len(history))]
    return found


def test_positives_have_the_same_target_and_are_others_where_there_are_any(
    sequences: Sequences, tables: SemanticTables, batch: Batch
) -> None:
    """No two of these prefixes of 6 are alike but of different places, or the check would be weaker."""
    _, term = make_model(tables)
    everything = training_targets(sequences)
    num_own = 0
    for _ in range(5):
        views = term.views(batch)
        prefixes = [items.tolist() for items in views.rows.items_T.split(views.rows.lengths_B.tolist())]
        assert len(prefixes) == len(views.notes) == batch.rows_with_targets_per_rank[0]
        for anchor, prefix in zip(views.notes.tolist(), prefixes, strict=True):
            row = int((batch.rows.starts_B <= anchor).sum()) - 1
            own_items = batch.rows.items_T[batch.rows.starts_B[row] : anchor + 1].tolist()
            target = int(batch.targets_T[anchor])
            same = [before for _, item, before in everything if item == target]
            others = [before for before in same if before[-len(own_items) :] != own_items]
            assert len(same) - len(others) >= 1
            allowed = others if len(same) > 1 and len(others) == len(same) - 1 else same
            assert prefix in [before[-6:] for before in allowed]
            num_own += len(same) == 1
    assert num_own < 40


def test_a_target_without_another_one_is_its_own_positive(tmp_path_factory: pytest.TempPathFactory) -> None:
    sequences = from_histories([[1, 2, 3, 9, 9], [4, 2, 5, 9, 9]], num_items=9)
    tables = tables_of(write_run(tmp_path_factory.mktemp("same"), sequences), sequences)
    batch = TrainingBatches(sequences, 6, 8, 0).batch(np.arange(2))
    _, term = make_model(tables)
    seen = Counter()
    for _ in range(60):
        views = term.views(batch)
        for anchor, items in zip(
            views.notes.tolist(), views.rows.items_T.split(views.rows.lengths_B.tolist()), strict=True
        ):
            seen[anchor, tuple(items.tolist())] += 1
    # Item 2 comes behind 1 and behind 4, each the other's positive; 3 and 5 come once, never as a held-out item.
    assert set(seen) == {(0, (4,)), (1, (1, 2)), (3, (1,)), (4, (4, 2))}


def test_one_trained_position_of_each_row_is_drawn_evenly(sequences: Sequences, tables: SemanticTables) -> None:
    _, term = make_model(tables)
    batches = TrainingBatches(sequences, 6, 1000, 0)
    batch = batches.batch(np.arange(len(batches.cuts)))
    trained = (batch.targets_T != PAD).nonzero().flatten().tolist()
    starts = batch.rows.starts_B.tolist()
    rows = [sum(start <= place for start in starts) - 1 for place in trained]
    counts: Counter[int] = Counter()
    num = 400
    for _ in range(num):
        anchors = term.views(batch).notes.tolist()
        assert anchors == sorted(anchors)
        assert [rows[trained.index(anchor)] for anchor in anchors] == sorted(set(rows))
        counts.update(anchors)
    per_row = Counter(rows)
    for place, row in zip(trained, rows, strict=True):
        share = 1 / per_row[row]
        assert abs(counts[place] - num * share) <= 5 * np.sqrt(num * share * (1 - share)) + 1e-9


@pytest.mark.parametrize("similarity", ["cosine", "inner_product"])
def test_negatives_are_the_other_rows_without_those_of_the_same_target(
    sequences: Sequences, tables: SemanticTables, batch: Batch, similarity: Similarity
) -> None:
    setting = "objectives.same_target"
    model, term = make_model(tables, f"{setting}.similarity={similarity}", f"{setting}.temperature=0.5")
    views = term.views(batch)
    table = model.encoder.catalogue()
    states, view_states = model.encoder(batch.rows, table), model.encoder(views.rows, table)
    encoded = Encoded(
        encoder=model.encoder, table=ItemTable(rows_ND=table), states_TD=states, view_states_TD=view_states
    )
    anchors = states[views.notes]
    positives = [part[-1] for part in view_states.split(views.rows.lengths_B.tolist())]
    targets = batch.targets_T[views.notes].tolist()
    assert len(set(targets)) < len(targets)
    losses = []
    for index, anchor in enumerate(anchors):
        others = [place for place in range(len(targets)) if targets[place] != targets[index]]
        candidates = [positives[index], *(positives[place] for place in others), *(anchors[place] for place in others)]
        losses.append(
            info_nce(anchor[None], torch.stack(candidates), torch.tensor([0]), similarity=similarity, temperature=0.5)
        )
    expected = torch.stack(losses).mean()
    assert float(term(batch, views, encoded).detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_gradients_reach_the_items_of_the_positives(tables: SemanticTables, batch: Batch) -> None:
    model, _ = make_model(tables)
    torch.manual_seed(3)
    model(batch)["same_target"].backward()
    torch.manual_seed(3)
    views = model.objective("same_target").views(batch)
    gradient = model.encoder.catalogue.embedding.weight.grad
    assert gradient is not None
    reached = set(gradient.ne(0).any(dim=1).nonzero().flatten().tolist())
    assert reached >= set(views.rows.items_T.tolist())
