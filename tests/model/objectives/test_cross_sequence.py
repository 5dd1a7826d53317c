from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from synthetic import enlarge, make_config, make_sequences, tables_of, write_run
from torch import Tensor

from sracl_dist.columns import MISSING
from sracl_dist.config.sections import Similarity
from sracl_dist.model.inputs import Batch
from sracl_dist.model.losses import info_nce
from sracl_dist.model.objectives.cross_sequence import CrossSequence
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.batches import TrainingBatches

PLAIN = ("objectives.terms=[next_item,cross_sequence]", "model.dropout=0", "model.attention_dropout=0")


def make_model(tables: SemanticTables, *settings: str) -> tuple[SraCl, CrossSequence]:
    settings = ("similarity=cosine", "temperature=0.2", "negatives=synthesised", "neighbour_states=bank", *settings)
    overrides = [f"objectives.cross_sequence.{setting}" for setting in settings]
    model = SraCl(make_config("unused", *PLAIN, *overrides), tables).train()
    enlarge(model.encoder)
    return model, cast(CrossSequence, model.objective("cross_sequence"))


def value_of(model: SraCl, batch: Batch) -> float:
    return float(model(batch)["cross_sequence"].detach())


def final_states(model: SraCl, batch: Batch) -> Tensor:
    return model.encoder(batch.rows, model.encoder.catalogue())[batch.rows.last_B[batch.histories_H]]


def plain_loss(
    model: SraCl,
    term: CrossSequence,
    batch: Batch,
    known_states: dict[int, Tensor],
    *,
    negatives: str = "synthesised",
    similarity: Similarity = "cosine",
    temperature: float = 0.2,
) -> Tensor:
    """User by user; `known_states` are those of the neighbours that count."""
    anchors, positives = [], []
    for user, state in zip(batch.history_users_G.tolist(), final_states(model, batch), strict=True):
        near = [other for other in term.neighbours_UK[user].tolist() if other in known_states]
        if not near:
            continue
        profiles = term.profiles_UP
        everybody = torch.ones(1, len(near), dtype=torch.bool)
        weights = term.synthesis.weights(profiles[[user]], profiles[near][None], everybody)[0]
        positives.append(sum(weight * known_states[other] for weight, other in zip(weights, near, strict=True)))
        anchors.append(state)
    losses = []
    for index, anchor in enumerate(anchors):
        candidates = list(positives)
        if negatives == "all":
            candidates += [other for place, other in enumerate(anchors) if place != index]
        losses.append(
            info_nce(
                anchor[None],
                torch.stack(candidates),
                torch.tensor([index]),
                similarity=similarity,
                temperature=temperature,
            )
        )
    return torch.stack(losses).mean()


def seen_states(term: CrossSequence) -> dict[int, Tensor]:
    assert term.bank is not None
    return {user: term.bank.states_UD[user].clone() for user in term.bank.seen_U.nonzero().flatten().tolist()}


def test_it_waits_until_a_neighbour_was_seen(tables: SemanticTables, batch: Batch) -> None:
    model, term = make_model(tables)
    assert term.bank is not None
    first = model(batch)["cross_sequence"]
    assert float(first.detach()) == 0.0
    first.backward()  # connected to the weights all the same, as DistributedDataParallel needs
    assert term.synthesis.attend.grad is not None
    assert term.bank.seen_U.nonzero().flatten().tolist() == sorted(batch.history_users_G.tolist())
    assert torch.allclose(term.bank.states_UD[batch.history_users_G], final_states(model, batch), atol=1e-6)
    assert value_of(model, batch) > 0


@pytest.mark.parametrize("similarity", ["cosine", "inner_product"])
@pytest.mark.parametrize("negatives", ["synthesised", "all"])
@pytest.mark.parametrize("synthesis", ["learned", "uniform"])
def test_it_contrasts_with_synthesised_states_of_the_bank(
    tables: SemanticTables, batch: Batch, similarity: Similarity, negatives: str, synthesis: str
) -> None:
    options = (f"similarity={similarity}", f"negatives={negatives}", f"synthesis={synthesis}", "temperature=0.7")
    model, term = make_model(tables, *options)
    model(batch)
    enlarge(model.encoder)  # the bank remembers older states than the anchors'
    known = seen_states(term)
    assert len(known) < len(tables.user_vectors)
    expected = plain_loss(model, term, batch, known, negatives=negatives, similarity=similarity, temperature=0.7)
    assert value_of(model, batch) == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.parametrize("negatives", ["synthesised", "all"])
def test_encoded_neighbours_equal_a_bank_that_holds_their_states(
    sequences: Sequences, tables: SemanticTables, batch: Batch, negatives: str
) -> None:
    model, term = make_model(tables, f"negatives={negatives}")
    fresh, _ = make_model(tables, f"negatives={negatives}", "neighbour_states=encoded")
    fresh.load_state_dict(model.weights())
    assert fresh.memory() == {}
    everybody = TrainingBatches(sequences, 6, 1000, 0).batch(np.arange(sequences.num_users))
    assert term.bank is not None
    for user in range(sequences.num_users):
        rows = tables.latest_training_rows(np.array([user]), 6)
        state = model.encoder(rows, model.encoder.catalogue())[-1:]
        term.bank.write(torch.tensor([user]), state)
    assert everybody.num_targets > batch.num_targets
    assert value_of(fresh, batch) == pytest.approx(value_of(model, batch), rel=1e-4)


@pytest.mark.parametrize("states", ["bank", "encoded"])
def test_gradients_reach_the_items_of_encoded_neighbours(
    sequences: Sequences, tables: SemanticTables, batch: Batch, states: str
) -> None:
    users = np.array([5, 9])
    rows = tables.latest_training_rows(users, 6)
    two = replace(
        batch,
        rows=rows,
        targets_T=torch.zeros_like(rows.items_T),
        histories_H=torch.arange(2),
        history_users_G=torch.from_numpy(users),
        histories_per_rank=(2,),
        num_targets=0,
    )
    near = sorted(set(tables.user_neighbours[users, :2].flatten().tolist()) - {MISSING})
    own = set(rows.items_T.tolist())
    theirs = {item for other in near for item in sequences.training(other)[-6:].tolist()}
    assert theirs - own
    model, term = make_model(tables, f"neighbour_states={states}", "num_neighbours=2")
    if term.bank is not None:
        term.bank.write(torch.tensor(near), torch.randn(len(near), 16))
    model(two)["cross_sequence"].backward()
    gradient = model.encoder.catalogue.embedding.weight.grad
    assert gradient is not None
    reached = set(gradient.ne(0).any(dim=1).nonzero().flatten().tolist())
    assert reached == (own | theirs if states == "encoded" else own)


def test_only_the_nearest_so_many_count(tables: SemanticTables, batch: Batch) -> None:
    model, term = make_model(tables, "num_neighbours=2", "synthesis=uniform")
    assert np.array_equal(term.neighbours_UK.numpy(), tables.user_neighbours[:, :2])
    model(batch)
    bank = term.bank
    assert bank is not None
    bank.seen_U[:] = True
    before = value_of(model.eval(), batch)
    named = {int(other) for user in batch.history_users_G for other in term.neighbours_UK[user]} - {MISSING}
    others = sorted(set(range(len(tables.user_vectors))) - named)
    assert others
    bank.states_UD[others] += 5.0
    assert value_of(model, batch) == before
    bank.states_UD[sorted(named)[0]] += 5.0
    assert value_of(model, batch) != before


def test_a_sampled_neighbour_is_one_of_the_list(tables: SemanticTables, batch: Batch) -> None:
    _, term = make_model(tables, "synthesis=sampled")
    assert term.bank is not None
    term.bank.write(torch.arange(40), torch.eye(40, 16) + torch.arange(40.0)[:, None])
    user = next(user for user in batch.history_users_G.tolist() if user > 1)
    drawn = set()
    for _ in range(60):
        positive = term._synthesise(torch.tensor([user]), term.views(batch), cast(object, None))  # type: ignore[arg-type]
        drawn |= {other for other in range(40) if torch.equal(positive[0], term.bank.states_UD[other])}
    assert drawn == set(tables.user_neighbours[user].tolist())


def test_random_neighbours_are_others_in_the_same_places(tables: SemanticTables) -> None:
    _, near = make_model(tables)
    _, term = make_model(tables, "neighbours=random")
    assert torch.equal(term.neighbours_UK == MISSING, near.neighbours_UK == MISSING)
    assert (near.neighbours_UK == MISSING).any()
    assert (term.neighbours_UK != torch.arange(len(tables.user_vectors))[:, None]).all()
    assert (term.neighbours_UK != near.neighbours_UK).float().mean() > 0.7
    _, again = make_model(tables, "neighbours=random")
    assert torch.equal(again.neighbours_UK, term.neighbours_UK)


@pytest.mark.parametrize("states", ["bank", "encoded"])
def test_a_neighbour_without_training_items_is_left_out(tmp_path_factory: pytest.TempPathFactory, states: str) -> None:
    """With a split by time a user may be there from the test period on."""
    sequences = make_sequences(12)
    num_train = sequences.num_train.copy()
    num_train[6] = 0
    sequences = replace(sequences, num_train=num_train)
    tables = tables_of(write_run(tmp_path_factory.mktemp("late"), sequences, num_neighbours=3), sequences)
    (askers,) = np.nonzero((tables.user_neighbours == 6).any(axis=1))
    assert len(askers) > 1
    batches = TrainingBatches(sequences, 6, 100, 0)
    batch = batches.batch(np.arange(len(batches.cuts)))
    assert 6 not in batch.history_users_G.tolist()
    model, term = make_model(tables, f"neighbour_states={states}")
    model(batch)
    known = {
        user: model.encoder(tables.latest_training_rows(np.array([user]), 6), model.encoder.catalogue())[-1]
        for user in range(12)
        if user != 6
    }
    expected = plain_loss(model, term, batch, known)
    assert value_of(model, batch) == pytest.approx(float(expected.detach()), rel=1e-4)
