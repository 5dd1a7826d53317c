"""Adam by rows against PyTorch's, which is given a gradient of zero for all that a step does not touch."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import NUM_ITEMS, make_config, make_sequences, tables_of
from torch import Tensor

from sracl_dist.config import Config
from sracl_dist.model.item_table import TouchedRows
from sracl_dist.model.sracl import SraCl
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.train import rowwise
from sracl_dist.train.loop import Trainer, fit, make_trainer, train_step
from sracl_dist.train.optimiser import make_optimiser
from sracl_dist.train.rowwise import RowwiseAdamW
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

SAMPLED = ("objectives.next_item.softmax=sampled", "objectives.next_item.num_sampled=16")


def make(config: Config, tables: SemanticTables) -> tuple[SraCl, RowwiseAdamW]:
    model = SraCl(config, tables)
    return model, make_optimiser(config.train, model)


def ask(model: SraCl, items: list[int], gradient: Tensor) -> None:
    """As if a step had read these items and a loss asked this of them."""
    model.catalogue.table(torch.tensor(items, dtype=torch.long))
    touched = model.catalogue.touched
    assert isinstance(touched, TouchedRows)
    touched.values_ND.grad = gradient[touched.items_N].clone()


def moments(optimiser: torch.optim.Optimizer, weight: Tensor) -> list[Tensor]:
    return [optimiser.state[weight][name] for name in ("exp_avg", "exp_avg_sq")]


@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize("settle_every", [1, 7, 1000])
def test_rows_end_where_adam_over_the_whole_table_ends(
    tables: SemanticTables, monkeypatch: pytest.MonkeyPatch, decay: float, settle_every: int
) -> None:
    """With a rate that changes, over more steps than terms, rows touched often, rarely, once and never."""
    monkeypatch.setattr(rowwise, "ROWS_PER_PIECE", 11)
    config = make_config("unused", *SAMPLED, f"train.embedding_weight_decay={decay}")
    model, optimiser = make(config, tables)
    dense = torch.nn.Parameter(model.catalogue.embedding.weight.detach().clone())
    reference = torch.optim.AdamW([dense], lr=1.0, weight_decay=decay)
    random = torch.Generator().manual_seed(1)
    start = dense.detach().clone()
    for step in range(400):
        items = sorted({1 + int(47.9 * x**4) for x in torch.rand(5, generator=random).tolist()} - {40, 41, 42})
        items += [41] if step == 20 else []
        rate = 0.01 * (1 + np.sin(step / 20)) / (1 + step / 100)
        gradient = torch.zeros_like(dense)
        gradient[items] = torch.randn(len(items), dense.shape[1], generator=random) * 10 ** float(-(step % 4))
        read = optimiser.current(torch.tensor(items))
        assert torch.allclose(read, dense[items].detach(), atol=1e-4), step  # a hundredth of a step: epsilon
        for each in (optimiser, reference):
            for group in each.param_groups:
                group["lr"] = rate
        ask(model, items, gradient)
        optimiser.step()
        dense.grad = gradient
        reference.step()
        if step % settle_every == 0:
            optimiser.settle()
    optimiser.settle()
    weight = model.catalogue.embedding.weight
    moved = (dense.detach() - start).abs().amax(dim=1)
    assert moved[1:20].gt(0.01).all()
    assert moved[41] > 0.01
    assert moved[42].eq(0) if decay == 0 else moved[42] > 1e-3
    assert torch.allclose(weight, dense, atol=1e-4)
    for found, expected in zip(moments(optimiser, weight), moments(reference, dense), strict=True):
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-9)
    assert float(optimiser.state[weight]["step"]) == 400


@settings(max_examples=20, deadline=None)
@given(
    steps=st.lists(st.lists(st.integers(1, NUM_ITEMS), max_size=4, unique=True), min_size=1, max_size=30),
    decay=st.sampled_from([0.0, 0.5]),
)
def test_any_order_of_touching(steps: list[list[int]], decay: float) -> None:
    sequences = make_sequences(20)
    tables = tables_of(RunFolder("unused"), sequences)
    overrides = (*SAMPLED, "objectives.terms=[next_item]", f"train.embedding_weight_decay={decay}")
    model, optimiser = make(make_config("unused", *overrides), tables)
    dense = torch.nn.Parameter(model.catalogue.embedding.weight.detach().clone())
    reference = torch.optim.AdamW([dense], lr=0.01, weight_decay=decay)
    for number, items in enumerate(steps):
        gradient = torch.zeros_like(dense)
        gradient[items] = torch.randn(len(items), dense.shape[1])
        ask(model, items, gradient)
        dense.grad = gradient
        optimiser.step()
        reference.step()
        if number % 10 == 9:
            optimiser.settle()
    optimiser.settle()
    assert torch.allclose(model.catalogue.embedding.weight, dense, atol=1e-5)
    assert model.catalogue.embedding.weight[0].eq(0).all()


def test_a_step_writes_nothing_but_the_rows_it_touches(sequences: Sequences, tables: SemanticTables) -> None:
    trainer = make_trainer(make_config("unused", *SAMPLED, "train.batch_rows=3"), sequences, tables, Worker())
    trainer.model.train()
    weight = trainer.model.catalogue.embedding.weight
    for step, rows in enumerate(trainer.batches.order(0)[:4]):
        before = [value.clone() for value in (weight, *moments(trainer.optimiser, weight))]
        read: list[Tensor] = []
        share = trainer.optimiser.share

        def remembered(worker: Worker, read: list[Tensor] = read, share: object = share) -> None:
            touched = trainer.model.catalogue.touched
            assert touched is not None
            read.append(touched.items_N)

        trainer.optimiser.share = remembered  # type: ignore[method-assign]
        train_step(trainer, trainer.parts(rows), step)
        trainer.optimiser.share = share  # type: ignore[method-assign]
        (items,) = read
        others = torch.ones(len(weight), dtype=torch.bool)
        others[items] = False
        assert others.sum() > 5
        for old, new in zip(before, (weight, *moments(trainer.optimiser, weight)), strict=True):
            assert torch.equal(old[others], new[others])
        assert (before[0] != weight)[items[1:]].any(dim=1).all()
        assert weight.grad is None


def test_clipping_counts_the_rows_and_scales_them(sequences: Sequences, tables: SemanticTables) -> None:
    config = make_config("unused", *SAMPLED, "train.max_gradient_norm=0.001")
    trainer = make_trainer(config, sequences, tables, Worker())
    trainer.model.train()
    seen: list[Tensor] = []
    step = trainer.optimiser.step

    def stepping() -> None:
        seen.extend(value.grad.clone() for value in trainer.model.with_gradient() if value.grad is not None)
        step()

    trainer.optimiser.step = stepping  # type: ignore[assignment]
    _, norm, _ = train_step(trainer, trainer.parts(trainer.batches.order(0)[0]), 0)
    assert float(norm) > 0.01
    assert float(torch.nn.utils.get_total_norm(seen)) == pytest.approx(0.001, rel=1e-3)
    assert any(len(gradient) > 10 and gradient.shape[1:] == (16,) for gradient in seen)


def make_sampled(sequences: Sequences, tables: SemanticTables) -> Trainer:
    return make_trainer(make_config("unused", *SAMPLED), sequences, tables, Worker())


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(
    sequences: Sequences, tables: SemanticTables, tmp_path: Path
) -> None:
    whole, first, second = (make_sampled(sequences, tables) for _ in range(3))
    for _ in fit(whole, Progress()):
        pass
    progress = Progress()
    next(fit(first, progress))
    first.save(tmp_path / "state", progress)
    for _ in fit(second, second.load(tmp_path / "state", place="it", anew="begin anew")):
        pass
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    weights = [trainer.model.catalogue.embedding.weight for trainer in (whole, second)]
    pairs = zip(*(moments(t.optimiser, w) for t, w in zip((whole, second), weights, strict=True)), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_a_checkpoint_in_the_middle_of_an_epoch_holds_settled_rows(
    sequences: Sequences, tables: SemanticTables, tmp_path: Path
) -> None:
    trainer, other = make_sampled(sequences, tables), make_sampled(sequences, tables)
    trainer.model.train()
    for step, rows in enumerate(trainer.batches.order(0)):
        train_step(trainer, trainer.parts(rows), step)
    everything = torch.arange(NUM_ITEMS + 1)
    expected = trainer.optimiser.current(everything)
    assert not torch.equal(expected, trainer.model.catalogue.embedding.weight)
    trainer.save(tmp_path / "state", Progress())
    other.load(tmp_path / "state", place="it", anew="begin anew")
    assert torch.equal(expected, other.model.catalogue.embedding.weight)
    assert torch.equal(expected, other.optimiser.current(everything))


def test_what_is_validated_is_up_to_date(sequences: Sequences, tables: SemanticTables) -> None:
    trainer = make_sampled(sequences, tables)
    for _ in fit(trainer, Progress()):
        weight = trainer.model.catalogue.embedding.weight
        assert torch.equal(trainer.optimiser.current(torch.arange(NUM_ITEMS + 1)), weight)
