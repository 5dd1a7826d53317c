import numpy as np
import pytest
import torch
from synthetic import NUM_ITEMS, enlarge, from_histories, make_config, make_sequences, tables_of, write_run
from torch import Tensor

from sracl_dist import precision
from sracl_dist.columns import PAD
from sracl_dist.model.inputs import Batch
from sracl_dist.model.sampling import ItemSampler, Sample
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.batches import TrainingBatches
from sracl_dist.train.optimiser import make_optimiser

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


def test_bfloat16_is_near(tables: SemanticTables, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: True)
    model = make_model(tables)
    near = make_model(tables, "train.precision=bfloat16")
    near.load_state_dict(model.state_dict())
    loss, expected = (float(each(batch)["total"].detach()) for each in (near, model))
    assert loss != expected
    assert loss == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("in_batch_share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("item_text", [False, True])
def test_the_sampled_softmax_by_hand(
    tables: SemanticTables, batch: Batch, monkeypatch: pytest.MonkeyPatch, in_batch_share: float, item_text: bool
) -> None:
    """Position by position with scores of the whole catalogue, from the sample that was drawn."""
    settings = ("softmax=sampled", "num_sampled=40", f"in_batch_share={in_batch_share}")
    overrides = [f"objectives.next_item.{setting}" for setting in settings]
    model = make_model(tables, *overrides, f"model.item_text={item_text}")
    drawn: list[Sample] = []
    draw = ItemSampler.draw

    def remembered(sampler: ItemSampler, targets_M: Tensor) -> Sample:
        drawn.append(draw(sampler, targets_M))
        return drawn[-1]

    monkeypatch.setattr(ItemSampler, "draw", remembered)
    loss = model(batch)["total"]
    ((items, log_expected),) = drawn
    table = model.encoder.catalogue()
    states = model.encoder(batch.rows, table)
    losses = []
    for state, target in zip(states, batch.targets_T.tolist(), strict=True):
        if target != PAD:
            others = [(table[item] @ state - log).exp() for item, log in zip(items, log_expected, strict=True)]
            kept = [score for score, item in zip(others, items.tolist(), strict=True) if item != target]
            own = (table[target] @ state).exp()
            losses.append(-torch.log(own / (own + sum(kept))))
    assert len(losses) == batch.num_targets
    assert float(loss.detach()) == pytest.approx(float(torch.stack(losses).mean().detach()), rel=1e-5)


@pytest.mark.parametrize("item_text", [False, True])
def test_what_is_asked_of_rows_is_the_gradient_by_the_whole_table(tables: SemanticTables, item_text: bool) -> None:
    """Views, samples and lent embeddings included; the rest of the weights get the same too."""
    terms = "objectives.terms=[next_item,intra_sequence,same_target]"
    overrides = (terms, "objectives.next_item.softmax=sampled", f"model.item_text={item_text}")
    batch = TrainingBatches(make_sequences(40), 6, 9, 0).batch(np.arange(9))
    by_rows = make_model(tables, *overrides)
    torch.manual_seed(3)
    by_rows(batch)["total"].backward()
    touched = by_rows.catalogue.touched
    assert touched is not None
    assert touched.values_ND.grad is not None
    assert by_rows.catalogue.embedding.weight.grad is None

    whole = make_model(tables, *overrides)
    whole.load_state_dict(by_rows.state_dict())
    whole.catalogue.by_rows = False
    whole.catalogue.embedding.weight.requires_grad_()
    torch.manual_seed(3)
    whole(batch)["total"].backward()
    expected = whole.catalogue.embedding.weight.grad
    assert expected is not None
    found = torch.zeros_like(expected)
    found[touched.items_N] = touched.values_ND.grad
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.abs().amax(dim=1).gt(0).sum() > 10
    for (name, own), other in zip(by_rows.named_parameters(), whole.parameters(), strict=True):
        if own.grad is not None:
            assert other.grad is not None
            assert torch.allclose(own.grad, other.grad, atol=1e-6), name


def test_with_the_sampled_softmax_the_groups_are_learnt(tables: SemanticTables) -> None:
    """Its loss falls to that of knowing the successor of most items."""
    batch = TrainingBatches(make_sequences(40), 6, 64, 0).batch(np.arange(40))
    for share in (0.0, 0.5):
        overrides = ("softmax=sampled", "num_sampled=20", f"in_batch_share={share}")
        model = make_model(tables, *(f"objectives.next_item.{override}" for override in overrides))
        optimiser = make_optimiser(make_config("unused", "train.learning_rate=0.02").train, model)
        for _ in range(60):
            optimiser.zero_grad()
            model(batch)["total"].backward()
            optimiser.step()
        optimiser.settle()
        assert float(plain_loss(model, batch).detach()) < 1.5 < 0.5 * float(np.log(NUM_ITEMS))
