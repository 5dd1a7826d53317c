"""The fast path against a row per prefix, and both against the formulas in plain loops."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import enlarge, make_config, make_sequences, tables_of, write_run
from torch import Tensor

from sracl_dist.bench.prefix_batches import PrefixBatches
from sracl_dist.bench.row_per_prefix import PrefixBatch, RowPerPrefix
from sracl_dist.columns import MISSING, PAD
from sracl_dist.config import Config
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives import CrossSequence
from sracl_dist.model.rows import Rows, latest_rows
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.batches import TrainingBatches

FITS = 12
"""Longest training history of the synthetic users."""
NUM_NEIGHBOURS = 5
ENCODERS = {
    "sasrec, post": ["model.encoder=sasrec", "model.norm=post"],
    "sasrec, pre": ["model.encoder=sasrec", "model.norm=pre"],
    "gru4rec": ["model.encoder=gru4rec"],
    "hstu": ["model.encoder=hstu"],
    "sasrec with texts": ["model.item_text=true"],
}
CONTRASTS = [
    ("uniform", "inner_product", "all"),
    ("learned", "inner_product", "all"),
    ("learned", "cosine", "synthesised"),
]


@pytest.fixture(scope="module")
def sequences() -> Sequences:
    return make_sequences(24)


@pytest.fixture
def tables(sequences: Sequences, tmp_path: Path) -> SemanticTables:
    return tables_of(write_run(tmp_path, sequences, num_neighbours=NUM_NEIGHBOURS), sequences)


def plain_config(*overrides: str, max_length: int = FITS) -> Config:
    """Nothing is drawn at random."""
    return make_config(
        "unused",
        "model.dropout=0",
        "model.attention_dropout=0",
        "model.num_layers=2",
        f"model.max_length={max_length}",
        "objectives.cross_sequence.neighbour_states=encoded",
        "objectives.intra_sequence.num_neighbours=1",
        "objectives.intra_sequence.replacement_rate=1",
        *overrides,
    )


def both(config: Config, tables: SemanticTables) -> tuple[SraCl, RowPerPrefix]:
    """Two ways to train the same weights."""
    fast = SraCl(config, tables)
    enlarge(fast.encoder)
    return fast, RowPerPrefix(fast, tables, config.model.max_length)


def all_histories(sequences: Sequences, max_length: int = FITS) -> Batch:
    return TrainingBatches(sequences, max_length, 10_000, 0).batch(np.arange(sequences.num_users))


def all_prefixes(sequences: Sequences, max_length: int = FITS) -> PrefixBatch:
    batches = PrefixBatches(sequences, max_length, 10_000, 0)
    return batches.batch(np.arange(batches.num_targets))


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def gradients(model: SraCl, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        assert torch.allclose(gradient, other[name], rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("encoder", ENCODERS)
def test_states_loss_and_gradients_equal_those_of_a_row_per_prefix(
    tables: SemanticTables, sequences: Sequences, encoder: str
) -> None:
    fast, slow = both(plain_config(*ENCODERS[encoder], "objectives.terms=[next_item]"), tables)
    batch, prefixes = all_histories(sequences), all_prefixes(sequences)
    table_VD = fast.encoder.catalogue()
    # Rows and prefixes both go through the users in order, hence so do the trained positions.
    states_MD = fast.encoder(batch.rows, table_VD)[batch.targets_T != PAD]
    assert torch.equal(batch.targets_T[batch.targets_T != PAD], prefixes.targets_B)
    assert close(states_MD, slow.final_states(prefixes.rows, table_VD))

    losses = fast(batch)["next_item"], slow(prefixes)["next_item"]
    assert close(*losses)
    assert_same_gradients(gradients(fast, losses[0]), gradients(fast, losses[1]))


@pytest.mark.parametrize("max_length", [1, 2, 5, 6])
def test_a_target_of_a_long_history_has_the_documented_context(
    tables: SemanticTables, sequences: Sequences, max_length: int
) -> None:
    fast, slow = both(plain_config("objectives.terms=[next_item]", max_length=max_length), tables)
    batches = TrainingBatches(sequences, max_length, 10_000, 0)
    batch = batches.batch(batches.order(0)[0])
    table_VD = fast.encoder.catalogue()
    states_TD = fast.encoder(batch.rows, table_VD)
    places = contexts(batch)
    offsets = sequences.offsets
    for place, context in places.items():
        user = int(np.searchsorted(offsets, place, side="right")) - 1
        before = sequences.training(user)[: place - offsets[user]].tolist()
        assert context == before[-len(context) :]
        assert len(context) in range(min(len(before), max(1, max_length // 2)), max_length + 1)
    trained_MD = states_TD[batch.targets_T != PAD]
    rows = latest_rows([np.array(context, np.int32) for context in places.values()], max_length)
    assert close(trained_MD, slow.final_states(rows, table_VD))
    assert sorted(places) == sorted(PrefixBatches(sequences, max_length, 1, 0)._target_E.tolist())


def contexts(batch: Batch) -> dict[int, list[int]]:
    """Items of the row before each trained target, by the target's place in the log."""
    found = {}
    for start, length, first in zip(
        batch.rows.starts_B.tolist(), batch.rows.lengths_B.tolist(), batch.places_B.tolist(), strict=True
    ):
        for position in range(length):
            if batch.targets_T[start + position] != PAD:
                items = batch.rows.items_T[start : start + position + 1].tolist()
                found[first + position + 1] = items
    return found


class Formulas:
    """The contrastive terms by their definition, one number at a time."""

    def __init__(self, model: SraCl, config: Config, tables: SemanticTables) -> None:
        self.model, self.objectives, self.tables = model, config.objectives, tables
        self.table_VD = model.encoder.catalogue()

    def state(self, items: list[int]) -> Tensor:
        row = Rows(items_T=torch.tensor(items), lengths_B=torch.tensor([len(items)]))
        state: Tensor = self.model.encoder(row, self.table_VD)[-1]
        return state

    def similarity(self, settings: Any, one: Tensor, other: Tensor) -> Tensor:
        norms = one.norm() * other.norm() if settings.similarity == "cosine" else 1.0
        return ((one @ other) / norms / settings.temperature).double()  # whose powers do not overflow

    def near(self, user: int) -> list[int]:
        row = self.tables.user_neighbours[user].tolist()
        return [other for other in row if other != MISSING and self.tables.sequences.num_train[other] > 0]

    def positive(self, user: int) -> Tensor:
        near = self.near(user)
        weights = [torch.tensor(1 / len(near))] * len(near)
        if self.objectives.cross_sequence.synthesis == "learned":
            synthesis = self.model.objectives["cross_sequence"].synthesis
            profile = [synthesis.project(torch.tensor(self.tables.user_vectors[one])) for one in [user, *near]]
            scores = [synthesis.attend[0] @ profile[0] + synthesis.attend[1] @ other for other in profile[1:]]
            powers = [torch.exp(score if score > 0 else 0.2 * score) for score in scores]
            weights = [power / sum(powers) for power in powers]
        states = [self.state(self.tables.sequences.training(other).tolist()) for other in near]
        return torch.stack([weight * state for weight, state in zip(weights, states, strict=True)]).sum(dim=0)

    def cross_sequence(self, histories: list[list[int]], users: list[int]) -> Tensor:
        settings = self.objectives.cross_sequence
        kept = [place for place, user in enumerate(users) if self.near(user)]
        anchors = [self.state(histories[place]) for place in kept]
        positives = [self.positive(users[place]) for place in kept]
        losses = []
        for own, anchor in enumerate(anchors):
            candidates = list(positives)
            if settings.negatives == "all":
                candidates += [other for place, other in enumerate(anchors) if place != own]
            powers = [torch.exp(self.similarity(settings, anchor, candidate)) for candidate in candidates]
            losses.append(-torch.log(powers[own] / sum(powers)))
        return torch.stack(losses).mean().float()

    def intra_sequence(self, histories: list[list[int]]) -> Tensor:
        settings = self.objectives.intra_sequence
        nearest = self.tables.item_neighbours[:, 0].tolist()
        replaced = [[nearest[v] if nearest[v] != MISSING else v for v in items] for items in histories]
        views = [self.state(items) for items in replaced] * 2
        losses = []
        for own, anchor in enumerate(views):
            powers = [torch.exp(self.similarity(settings, anchor, candidate)) for candidate in views]
            other = (own + len(histories)) % len(views)
            losses.append(-torch.log(powers[other] / (sum(powers) - powers[own])))
        return torch.stack(losses).mean().float()


def histories_of(rows: Rows) -> list[list[int]]:
    return [row.tolist() for row in rows.items_T.split(rows.lengths_B.tolist())]


def contrast_config(synthesis: str, similarity: str, negatives: str) -> Config:
    settings = ("synthesis", synthesis), ("similarity", similarity), ("negatives", negatives), ("temperature", "0.7")
    overrides = [f"objectives.cross_sequence.{name}={value}" for name, value in settings]
    return plain_config(*overrides, f"objectives.intra_sequence.similarity={similarity}")


@pytest.mark.parametrize(("synthesis", "similarity", "negatives"), CONTRASTS)
def test_contrastive_terms_are_what_the_formulas_say(
    tables: SemanticTables, sequences: Sequences, synthesis: str, similarity: str, negatives: str
) -> None:
    config = contrast_config(synthesis, similarity, negatives)
    model, slow = both(config, tables)
    histories, prefixes = all_histories(sequences), PrefixBatches(sequences, FITS, 16, 0)
    chosen = prefixes.batch(prefixes.order(0)[0])
    formulas = Formulas(model, config, tables)
    cases = [
        (model(histories), histories.rows, histories.own_history_users()),
        (slow(chosen), chosen.rows, chosen.users_B),
    ]
    for terms, rows, users in cases:
        cross = formulas.cross_sequence(histories_of(rows), users.tolist())
        intra = formulas.intra_sequence(histories_of(rows))
        assert close(terms["cross_sequence"], cross)
        assert close(terms["intra_sequence"], intra)
        weights = [getattr(config.objectives, name).weight for name in ("cross_sequence", "intra_sequence")]
        assert close(terms["total"], terms["next_item"] + weights[0] * cross + weights[1] * intra)
        assert_same_gradients(gradients(model, terms["cross_sequence"]), gradients(model, cross))


@pytest.mark.parametrize(("synthesis", "similarity", "negatives"), CONTRASTS)
def test_a_bank_of_the_right_states_yields_the_same_term(
    tables: SemanticTables, sequences: Sequences, synthesis: str, similarity: str, negatives: str
) -> None:
    config = contrast_config(synthesis, similarity, negatives)
    encoded, slow = both(config, tables)
    config.objectives.cross_sequence.neighbour_states = "bank"
    banked = SraCl(config, tables)
    banked.load_state_dict(encoded.state_dict(), strict=False)
    term = banked.objectives["cross_sequence"]
    assert isinstance(term, CrossSequence)
    assert term.bank is not None
    users = np.flatnonzero(sequences.num_train)
    with torch.no_grad():
        states_UD = slow.final_states(tables.latest_training_rows(users, FITS), encoded.encoder.catalogue())
    term.bank.write(torch.from_numpy(users), states_UD)
    batch = all_histories(sequences)
    assert close(banked(batch)["cross_sequence"], encoded(batch)["cross_sequence"])


def test_fourteen_padded_rows_pass_for_every_prefix(sequences: Sequences, tmp_path: Path) -> None:
    tables = tables_of(write_run(tmp_path, sequences, num_neighbours=10), sequences)
    config = make_config("unused", "objectives.cross_sequence.neighbour_states=encoded")
    model, slow = both(config, tables)
    lengths: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].lengths_B))
    batches = PrefixBatches(sequences, 6, 32, 0)
    full = (tables.user_neighbours != MISSING).all(axis=1)[batches._user_E]
    slow(batches.batch(np.flatnonzero(full)[:8]))
    assert sum(len(part) for part in lengths) == 8 * 14
    assert set(torch.cat(lengths).tolist()) == {6}


def test_a_batch_without_any_neighbour_has_no_cross_sequence_term(tables: SemanticTables, sequences: Sequences) -> None:
    model, slow = both(plain_config(), tables)
    batches = PrefixBatches(sequences, FITS, 32, 0)
    lonely = batches.batch(np.flatnonzero(batches._user_E == 0))  # user 0 has no neighbours
    terms = slow(lonely)
    assert float(terms["cross_sequence"].detach()) == 0.0
    terms["total"].backward()
    assert math.isfinite(sum(float(p.grad.norm()) for p in model.parameters() if p.grad is not None))
