import numpy as np
import pytest
import torch
from synthetic import NUM_ITEMS

from sracl_dist.columns import MISSING, PAD
from sracl_dist.config import Config
from sracl_dist.config.sections import ObjectivesConfig, Similarity
from sracl_dist.data.sequences import Sequences
from sracl_dist.model.inputs import Batch, last_states
from sracl_dist.model.losses import info_nce
from sracl_dist.model.objectives import OBJECTIVES, CrossSequence, IntraSequence
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.batches import TrainingBatches


@pytest.fixture
def batch(sequences: Sequences) -> Batch:
    batches = TrainingBatches(sequences, 6, 32, 0)
    return batches.batch(batches.order(0)[0])


def test_configuration_and_registry_know_the_same_terms() -> None:
    for name in OBJECTIVES:
        ObjectivesConfig(terms=list({"next_item": None, name: None})).check()
    with pytest.raises(ValueError, match=f"out of {', '.join(OBJECTIVES)}$"):
        ObjectivesConfig(terms=["unknown"]).check()


def test_total_is_the_weighted_sum(config: Config, tables: SemanticTables, batch: Batch) -> None:
    config.objectives.cross_sequence.weight, config.objectives.intra_sequence.weight = 0.3, 0.7
    terms = SraCl(config, tables)(batch)
    expected = terms["next_item"] + 0.3 * terms["cross_sequence"] + 0.7 * terms["intra_sequence"]
    assert float(terms["total"].detach()) == pytest.approx(float(expected.detach()))


def test_next_item_is_the_mean_over_trained_targets(config: Config, tables: SemanticTables, batch: Batch) -> None:
    config.objectives.terms = ["next_item"]
    model = SraCl(config, tables).eval()
    scores = model.encoder(batch.items_BL) @ model.encoder.catalogue().T
    losses = [
        -scores[row, place].log_softmax(dim=0)[target - 1]
        for row, targets in enumerate(batch.targets_BL.tolist())
        for place, target in enumerate(targets)
        if target != PAD
    ]
    assert len(losses) == batch.num_targets
    assert float(model(batch)["total"].detach()) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_substitution_rate_and_membership(config: Config, tables: SemanticTables) -> None:
    config.objectives.intra_sequence.replacement_rate = 0.3
    objective = IntraSequence(config, tables)
    items = torch.randint(0, NUM_ITEMS + 1, (2000, 20))
    view = objective.view(items)
    assert view[items == PAD].eq(PAD).all()
    assert view.min() >= 0
    has_neighbours = torch.from_numpy((tables.item_neighbours != MISSING).any(axis=1))[items]
    assert torch.equal(view[~has_neighbours], items[~has_neighbours])
    changed = view != items
    assert float(changed[has_neighbours].float().mean()) == pytest.approx(0.3, abs=0.01)
    for item, replacement in zip(items[changed].tolist(), view[changed].tolist(), strict=True):
        assert replacement in tables.item_neighbours[item]
        assert replacement != MISSING


def test_every_neighbour_is_drawn_about_equally_often(config: Config, tables: SemanticTables) -> None:
    config.objectives.intra_sequence.replacement_rate = 1.0
    drawn = IntraSequence(config, tables).view(torch.full((1, 40_000), 5))
    counts = np.unique(drawn.numpy(), return_counts=True)
    assert counts[0].tolist() == sorted(tables.item_neighbours[5].tolist())
    assert counts[1] == pytest.approx(10_000, rel=0.05)


def test_missing_neighbours_may_stand_anywhere_in_a_list(config: Config, tables: SemanticTables) -> None:
    config.objectives.intra_sequence.replacement_rate = 1.0
    tables.item_neighbours[7] = [MISSING, 9, MISSING, 11]
    drawn = IntraSequence(config, tables).view(torch.full((1, 1000), 7))
    assert set(drawn.flatten().tolist()) == {9, 11}


def test_cross_sequence_waits_until_a_neighbour_was_seen(config: Config, tables: SemanticTables, batch: Batch) -> None:
    config.objectives.terms, config.model.dropout = ["next_item", "cross_sequence"], 0.0
    model = SraCl(config, tables).train()
    term = model.objectives["cross_sequence"]
    assert isinstance(term, CrossSequence)
    first = model(batch)["cross_sequence"]
    assert float(first.detach()) == 0.0
    first.backward()  # connected to the parameters all the same, as DistributedDataParallel needs
    assert term.synthesis.attend.grad is not None
    assert term.bank.seen_U.nonzero().flatten().tolist() == sorted(batch.history_users_G.tolist())
    expected = last_states(model.encoder(batch.items_BL), batch.lengths_B)[batch.histories_H]
    assert torch.allclose(term.bank.states_UD[batch.history_users_G], expected, atol=1e-6)


@pytest.mark.parametrize("similarity", ["cosine", "inner_product"])
def test_cross_sequence_contrasts_with_synthesised_states(
    config: Config, tables: SemanticTables, batch: Batch, similarity: Similarity
) -> None:
    config.objectives.terms, config.model.dropout = ["next_item", "cross_sequence"], 0.0
    settings = config.objectives.cross_sequence
    settings.similarity, settings.temperature = similarity, 0.7
    model = SraCl(config, tables).train()
    model(batch)
    term = model.objectives["cross_sequence"]
    assert isinstance(term, CrossSequence)
    users = [user for user in batch.history_users_G.tolist() if user != 0]  # user 0 has no neighbours
    users = [user for user in users if any(n >= 0 and term.bank.seen_U[n] for n in tables.user_neighbours[user])]
    positives = []
    for user in users:
        near = [n for n in tables.user_neighbours[user].tolist() if n >= 0 and term.bank.seen_U[n]]
        profiles = torch.from_numpy(tables.user_vectors)
        weights = term.synthesis.weights(
            profiles[[user]], profiles[near][None], torch.ones(1, len(near), dtype=torch.bool)
        )
        positives.append(weights[0] @ term.bank.states_UD[near])
    anchors = last_states(model.encoder(batch.items_BL), batch.lengths_B)[batch.histories_H]
    places = [batch.history_users_G.tolist().index(user) for user in users]
    expected = info_nce(
        anchors[places],
        torch.stack(positives),
        torch.arange(len(users)),
        similarity=similarity,
        temperature=0.7,
    )
    assert float(model(batch)["cross_sequence"].detach()) == pytest.approx(
        float(expected.detach()) / len(users), rel=1e-4
    )


def test_evaluation_mode_leaves_the_bank_alone(config: Config, tables: SemanticTables, batch: Batch) -> None:
    model = SraCl(config, tables).eval()
    model(batch)
    assert not any(value.any() for value in model.memory().values())
    assert sorted(model.memory()) == [f"objectives.cross_sequence.bank.{name}" for name in ("seen_U", "states_UD")]


@pytest.mark.parametrize("similarity", ["cosine", "inner_product"])
def test_a_batch_that_ends_no_history_has_no_contrast(
    config: Config, tables: SemanticTables, sequences: Sequences, similarity: Similarity
) -> None:
    """So it happens on a worker whose few rows are all early windows of long histories."""
    config.objectives.cross_sequence.similarity = config.objectives.intra_sequence.similarity = similarity
    batches = TrainingBatches(sequences, 6, 32, 0)
    early = batches.batch(np.flatnonzero(~batches._windows.ends_history_R)[:4])
    assert len(early.histories_H) == 0
    terms = SraCl(config, tables)(early)
    assert float(terms["cross_sequence"].detach()) == float(terms["intra_sequence"].detach()) == 0
    terms["total"].backward()
