import numpy as np
import pytest
import torch
from synthetic import make_config

from sracl_dist.config.sections import OBJECTIVE_NAMES, ObjectivesConfig, Similarity
from sracl_dist.model.inputs import Batch
from sracl_dist.model.item_table import ItemTable
from sracl_dist.model.objectives import OBJECTIVES, Encoded
from sracl_dist.model.rows import Rows
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.batches import TrainingBatches

ALL_TERMS = f"objectives.terms=[{','.join(OBJECTIVES)}]"


@pytest.fixture
def batch(sequences: Sequences) -> Batch:
    batches = TrainingBatches(sequences, 6, 32, 0)
    return batches.batch(batches.order(0)[0])


def test_configuration_and_registry_know_the_same_terms() -> None:
    assert tuple(OBJECTIVES) == OBJECTIVE_NAMES
    for name in OBJECTIVES:
        ObjectivesConfig(terms=list({"next_item": None, name: None})).check()
    with pytest.raises(ValueError, match=f"out of {', '.join(OBJECTIVES)}$"):
        ObjectivesConfig(terms=["unknown"]).check()


def test_every_term_reads_its_own_settings(tables: SemanticTables) -> None:
    weights = [f"objectives.{name}.weight=0.{place}" for place, name in enumerate(OBJECTIVE_NAMES) if place]
    model = SraCl(make_config("unused", ALL_TERMS, *weights), tables)
    assert [model.objective(name).weight for name in OBJECTIVE_NAMES] == [1.0, 0.1, 0.2, 0.3, 0.4]


def test_total_is_the_weighted_sum(tables: SemanticTables, batch: Batch) -> None:
    weights = (0.3, 0.7, 0.2, 1.5)
    config = make_config("unused", ALL_TERMS, "objectives.cross_sequence.neighbour_states=encoded")
    for name, weight in zip(OBJECTIVE_NAMES[1:], weights, strict=True):
        getattr(config.objectives, name).weight = weight
    terms = {name: float(value.detach()) for name, value in SraCl(config, tables)(batch).items()}
    assert list(terms) == [*OBJECTIVE_NAMES, "total"]
    assert all(value > 0 for value in terms.values())
    expected = terms["next_item"]
    expected += sum(weight * terms[name] for name, weight in zip(OBJECTIVE_NAMES[1:], weights, strict=True))
    assert terms["total"] == pytest.approx(expected)


def test_a_term_is_the_same_alone_and_beside_others(tables: SemanticTables, batch: Batch) -> None:
    """All views pass through the encoder together, and each term gets its own back."""
    plain = ["objectives.cross_sequence.neighbour_states=encoded", "model.dropout=0", "model.attention_dropout=0"]
    everything = SraCl(make_config("unused", ALL_TERMS, *plain), tables)
    torch.manual_seed(5)
    together = everything(batch)
    alone = SraCl(make_config("unused", "objectives.terms=[next_item,cross_sequence]", *plain), tables)
    alone.load_state_dict(everything.state_dict(), strict=False)
    for name, value in alone(batch).items():
        if name != "total":
            assert torch.allclose(value, together[name], atol=1e-5), name

    # The terms that draw: once more with the views that they drew then.
    torch.manual_seed(5)
    views = {name: everything.objective(name).views(batch) for name in OBJECTIVES}
    table = everything.encoder.catalogue()
    states = everything.encoder(batch.rows, table)
    for name, view in views.items():
        encoded = Encoded(
            encoder=everything.encoder,
            table=ItemTable(rows_ND=table),
            states_TD=states,
            view_states_TD=everything.encoder(view.rows, table),
        )
        value = everything.objective(name)(batch, view, encoded)
        assert torch.allclose(value, together[name], atol=1e-5), name


@pytest.mark.parametrize("encoder", ["sasrec", "gru4rec", "hstu"])
def test_every_weight_gets_a_gradient_from_every_batch(tables: SemanticTables, batch: Batch, encoder: str) -> None:
    """Other workers wait for it, even where a worker's share of a step has no row at all."""
    options = ("model.item_text=true", "model.repeat_bias=true", f"model.encoder={encoder}")
    for states in ("bank", "encoded"):
        config = make_config("unused", ALL_TERMS, *options, f"objectives.cross_sequence.neighbour_states={states}")
        nothing = Batch(
            rows=Rows(items_T=torch.zeros(0, dtype=torch.int64), lengths_B=torch.zeros(0, dtype=torch.int64)),
            targets_T=torch.zeros(0, dtype=torch.int64),
            places_B=torch.zeros(0, dtype=torch.int64),
            histories_H=torch.zeros(0, dtype=torch.int64),
            history_users_G=torch.zeros(0, dtype=torch.int64),
            histories_per_rank=(0,),
            rows_with_targets_per_rank=(0,),
            rank=0,
            num_targets=0,
        )
        for part in (batch, nothing):
            model = SraCl(config, tables)
            model(part)["total"].backward()
            assert [name for name, value in model.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("similarity", ["cosine", "inner_product"])
def test_a_batch_that_ends_no_history_has_no_contrast_of_histories(
    tables: SemanticTables, sequences: Sequences, similarity: Similarity
) -> None:
    """So it happens on a worker whose few rows are all early windows of long histories."""
    config = make_config("unused", ALL_TERMS)
    for name in OBJECTIVE_NAMES[1:]:
        getattr(config.objectives, name).similarity = similarity
    batches = TrainingBatches(sequences, 6, 32, 0)
    windows = batches.cuts.windows(np.arange(len(batches.cuts)))
    early = batches.batch(np.flatnonzero(~windows.ends_history_R)[:4])
    assert len(early.histories_H) == 0
    terms = SraCl(config, tables)(early)
    for name in ("cross_sequence", "intra_sequence", "random_views"):
        assert float(terms[name].detach()) == 0, name
    assert float(terms["same_target"].detach()) > 0
    terms["total"].backward()


def test_memory_is_what_is_not_learned(tables: SemanticTables, batch: Batch) -> None:
    model = SraCl(make_config("unused", ALL_TERMS), tables).eval()
    bank = [f"objectives.cross_sequence.bank.{name}" for name in ("seen_U", "states_UD")]
    assert sorted(model.memory()) == bank
    assert model.weights().keys() | model.memory().keys() == model.state_dict().keys()
    model(batch)
    assert not any(value.any() for value in model.memory().values()), "evaluation mode leaves the bank alone"
    model.train()(batch)
    assert all(value.any() for value in model.memory().values())
