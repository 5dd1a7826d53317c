import numpy as np
import pytest
import torch
from synthetic import NUM_ITEMS, enlarge, from_histories, make_config, make_sequences, tables_of, write_run
from torch import Tensor

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import PAD
from sracl_dist.data.sequences import Sequences
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives import next_item
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.batches import TrainingBatches

PLAIN = ("objectives.terms=[next_item]", "model.dropout=0", "model.attention_dropout=0")


def make_model(tables: SemanticTables, *overrides: str) -> SraCl:
    model = SraCl(make_config("unused", *PLAIN, *overrides), tables)
    enlarge(model.encoder)
    return model


def plain_loss(model: SraCl, batch: Batch, *, horizon: int = 1, candidates: list[int] | None = None) -> Tensor:
    """Position by position, with scores of the whole catalogue."""
    table = model.encoder.catalogue()
    wanted = candidates or list(range(1, len(table)))
    parts = batch.rows.lengths_B.tolist()
    losses = []
    for items, targets, states in zip(
        batch.rows.items_T.split(parts),
        batch.targets_T.split(parts),
        model.encoder(batch.rows, table).split(parts),
        strict=True,
    ):
        for place, target in enumerate(targets.tolist()):
            if target == PAD:
                continue
            scores = states[place] @ table[wanted].T
            if model.encoder.repeat_bias is not None:
                seen = torch.tensor([item in items[: place + 1].tolist() for item in wanted]).float()
                scores = scores + model.encoder.repeat_bias * seen
            logs = scores.log_softmax(dim=0)
            later = [(0.5**step, item) for step, item in enumerate(targets[place : place + horizon].tolist()) if item]
            loss = torch.stack([-weight * logs[wanted.index(item)] for weight, item in later]).sum()
            losses.append(loss / sum(weight for weight, _ in later))
    assert len(losses) == batch.num_targets
    return torch.stack(losses).mean()


def assert_same_gradients(model: SraCl, loss: Tensor, expected: Tensor) -> None:
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    parameters = [value for _, value in model.named_parameters()]
    gradients = torch.autograd.grad(loss, parameters)
    for (name, _), own, other in zip(
        model.named_parameters(), gradients, torch.autograd.grad(expected, parameters), strict=True
    ):
        assert torch.allclose(own, other, atol=1e-5, rtol=1e-4), name


def test_the_mean_over_trained_targets(tables: SemanticTables, batch: Batch) -> None:
    model = make_model(tables)
    assert_same_gradients(model, model(batch)["total"], plain_loss(model, batch))


@pytest.mark.parametrize("horizon", [2, 3, 20])
def test_later_targets_count_less(tables: SemanticTables, batch: Batch, horizon: int) -> None:
    model = make_model(tables, f"objectives.next_item.horizon={horizon}")
    assert_same_gradients(model, model(batch)["total"], plain_loss(model, batch, horizon=horizon))


def test_the_repeat_bias_is_added_where_the_history_holds_the_item(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Histories come back to their items, some at once."""
    sequences = from_histories(
        [[1, 2, 1, 1, 3, 2, 4, 5], [3, 3, 3, 2, 1, 5], [5, 4, 5, 4, 1, 2, 3, 3, 4, 2, 1]], num_items=6
    )
    tables = tables_of(write_run(tmp_path_factory.mktemp("repeats"), sequences), sequences)
    batch = TrainingBatches(sequences, 6, 10, 0).batch(np.arange(4))
    for overrides, horizon in ((), 1), (("objectives.next_item.horizon=3",), 3):
        model = make_model(tables, "model.repeat_bias=true", *overrides)
        assert model.encoder.repeat_bias is not None
        assert abs(float(model.encoder.repeat_bias.detach())) > 0.01
        assert_same_gradients(model, model(batch)["total"], plain_loss(model, batch, horizon=horizon))


def test_the_repeat_bias_learns_whether_items_come_back(tables: SemanticTables) -> None:
    assert make_model(tables).encoder.repeat_bias is None
    for histories, sign in (([[1, 1, 1, 1, 1, 2, 3]] * 4, 1), ([[1, 2, 3, 4, 5, 6, 7]] * 4, -1)):
        batch = TrainingBatches(from_histories(histories, num_items=NUM_ITEMS), 6, 8, 0).batch(np.arange(4))
        model = SraCl(make_config("unused", *PLAIN, "model.repeat_bias=true"), tables)
        model(batch)["total"].backward()
        assert model.encoder.repeat_units is not None
        assert model.encoder.repeat_units.grad is not None
        assert float(model.encoder.repeat_units.grad) * sign < 0


def test_items_without_training_are_no_candidates_where_their_text_speaks_for_them(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    sequences = from_histories([[1, 2, 4, 5, 3], [2, 6, 4, 1, 7], [6, 5, 2, 8, 8]], num_items=9)
    tables = tables_of(write_run(tmp_path_factory.mktemp("cold"), sequences), sequences)
    batch = TrainingBatches(sequences, 6, 8, 0).batch(np.arange(3))
    for overrides, candidates in ((), None), (("model.item_text=true",), [1, 2, 4, 5, 6]):
        model = make_model(tables, *overrides)
        assert_same_gradients(model, model(batch)["total"], plain_loss(model, batch, candidates=candidates))


def test_bfloat16_is_near(tables: SemanticTables, batch: Batch) -> None:
    model = make_model(tables)
    near = make_model(tables, "train.precision=bfloat16")
    near.load_state_dict(model.state_dict())
    loss, expected = (float(each(batch)["total"].detach()) for each in (near, model))
    assert loss != expected
    assert loss == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_sample_is_drawn_by_training_interactions(
    sequences: Sequences, tables: SemanticTables, batch: Batch, monkeypatch: pytest.MonkeyPatch, power: float
) -> None:
    settings = ("softmax=sampled", "num_sampled=50000", f"sampling_power={power}")
    model = make_model(tables, *(f"objectives.next_item.{setting}" for setting in settings))
    calls = []

    def loss(*arguments: Tensor) -> Tensor:
        calls.append(arguments)
        return arguments[0].sum()

    monkeypatch.setattr(next_item, "sampled_softmax_loss", loss)
    model(batch)
    ((_, own, targets, drawn, sampled, log_expected),) = calls
    table = model.encoder.catalogue()
    assert torch.equal(own, table[targets])
    assert torch.equal(drawn, table[sampled])
    assert targets.tolist() == batch.targets_T[batch.targets_T != PAD].tolist()
    counts = sequences.training_counts().astype(float)
    wanted = np.where(counts > 0, counts**power, 0.0)
    expected = 50_000 * wanted / wanted.sum()
    assert np.allclose(log_expected.exp().numpy(), expected[sampled.numpy()], rtol=1e-4)
    occurrences = np.bincount(sampled.numpy(), minlength=NUM_ITEMS + 1)
    assert (occurrences[expected == 0] == 0).all()
    assert np.abs(occurrences - expected).max() < 5 * np.sqrt(expected.max())


def test_an_item_that_is_not_trained_is_never_sampled() -> None:
    sequences = from_histories([[1, 2, 4, 5, 3]], num_items=9)
    term = next_item.NextItem(
        make_config("unused", "objectives.next_item.sampling_power=0"), tables_of(RunFolder("unused"), sequences)
    )
    assert term.get_buffer("shares_V").nonzero().flatten().tolist() == [1, 2, 4]


def test_with_the_sampled_softmax_the_groups_are_learnt(tables: SemanticTables) -> None:
    """Its loss falls to that of knowing the successor of most items."""
    batch = TrainingBatches(make_sequences(40), 6, 64, 0).batch(np.arange(40))
    model = make_model(tables, "objectives.next_item.softmax=sampled", "objectives.next_item.num_sampled=20")
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        model(batch)["total"].backward()
        optimiser.step()
    assert float(plain_loss(model, batch).detach()) < 1.5 < 0.5 * float(np.log(NUM_ITEMS))
