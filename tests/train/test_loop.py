import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import NUM_ITEMS, make_config, make_sequences, tables_of, with_other_future, write_run

from sracl_dist.config import Config
from sracl_dist.config.sections import OBJECTIVE_NAMES
from sracl_dist.errors import StageError
from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.train import loop
from sracl_dist.train.loop import Trainer, fit, make_trainer, train_step
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

TIMES = ("wall_s", "examples_per_second", "data_wait_share")


def curve(progress: Progress) -> list[dict[str, Any]]:
    """What must repeat exactly: everything but times."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in progress.history]


def train(trainer: Trainer, progress: Progress | None = None, *, stops: bool = False) -> Progress:
    """To the end; `stops` stops after every step, as for a checkpoint."""
    progress = progress or Progress()
    for _ in fit(trainer, progress, is_due=lambda: stops):
        pass
    return progress


EVERYTHING = (
    f"objectives.terms=[{','.join(OBJECTIVE_NAMES)}]",
    "model.item_text=true",
    "model.repeat_bias=true",
    "train.warmup_epochs=1.5",
    "train.decay=cosine",
    "train.weight_decay=0.1",
    "train.embedding_weight_decay=0.01",
    "objectives.next_item.horizon=2",
)
SAMPLED = ("objectives.next_item.softmax=sampled", "objectives.next_item.num_sampled=20")
PARTS = ("train.accumulate_steps=3",)
ENCODED = ("objectives.cross_sequence.neighbour_states=encoded", "objectives.cross_sequence.synthesis=sampled")


@pytest.mark.parametrize("num_before", [1, 4, 7], ids=["in the first epoch", "between two", "in a later epoch"])
@pytest.mark.parametrize(
    "overrides", [(), EVERYTHING, (*SAMPLED, *ENCODED), PARTS], ids=["default", "everything", "sampled", "in parts"]
)
def test_a_run_killed_at_any_step_ends_like_an_undisturbed_one(
    sequences: Sequences, tables: SemanticTables, tmp_path: Path, num_before: int, overrides: tuple[str, ...]
) -> None:
    config = make_config("unused", "train.batch_rows=16", *overrides)  # four steps an epoch
    undisturbed = make_trainer(config, sequences, tables, Worker())
    # A checkpoint brings embeddings that are read by rows up to date, which rounds them at another moment.
    expected = train(undisturbed, stops="objectives.next_item.softmax=sampled" in overrides)
    assert undisturbed.batches.num_steps == 4

    first = make_trainer(config, sequences, tables, Worker())
    for progress in fit(first, Progress(), is_due=lambda: True):
        first.save(tmp_path / "state", progress)
        if progress.step == num_before:
            break
    torch.manual_seed(999)  # a new process starts with another random state
    second = make_trainer(config, sequences, tables, Worker())
    progress = second.load(tmp_path / "state", place="it", anew="begin anew")
    assert (progress.epoch * 4 + progress.epoch_step, progress.step) == (num_before, num_before)
    resumed = train(second, progress, stops="objectives.next_item.softmax=sampled" in overrides)

    assert curve(resumed) == curve(expected)
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    moments = second.optimiser.state_dict()["state"]
    for index, state in undisturbed.optimiser.state_dict()["state"].items():
        assert all(torch.equal(value, moments[index][key]) for key, value in state.items())


def test_runs_steps_and_workers_draw_other_numbers() -> None:
    drawn = set()
    for seed, step, rank in itertools.product((0, 1), (0, 1, 2), (0, 1)):
        loop._seed(seed, step, Worker(rank=rank, world_size=2))
        first = torch.rand(1).item()
        loop._seed(seed, step, Worker(rank=rank, world_size=2))
        assert torch.rand(1).item() == first
        drawn.add(first)
    assert len(drawn) == 12


WITHOUT_DROPOUT = ("model.dropout=0", "model.attention_dropout=0", "train.epochs=2")


def trainers(sequences: Sequences, tables: SemanticTables, terms: str) -> list[Trainer]:
    """One that takes its steps whole, and one that takes them in parts."""
    return [
        make_trainer(
            make_config("unused", *WITHOUT_DROPOUT, f"objectives.terms=[{terms}]", *overrides),
            sequences,
            tables,
            Worker(),
        )
        for overrides in ((), PARTS)
    ]


def test_a_step_in_parts_learns_the_same(sequences: Sequences, tables: SemanticTables) -> None:
    whole, parts = (train(trainer) for trainer in trainers(sequences, tables, "next_item"))
    for one, other in zip(whole.history, parts.history, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["gradient_norm"] == pytest.approx(one["gradient_norm"], rel=1e-4)


def test_a_step_in_parts_has_fewer_negatives(sequences: Sequences, tables: SemanticTables) -> None:
    terms = []
    for trainer in trainers(sequences, tables, "next_item,intra_sequence"):
        trainer.parallel.train()
        terms.append(train_step(trainer, trainer.parts(trainer.batches.order(0)[0]), 0)[0])
    whole, parts = (each["intra_sequence"].item() for each in terms)
    assert parts < 0.9 * whole


def test_parts_share_out_the_rows_of_a_step(sequences: Sequences, tables: SemanticTables) -> None:
    trainer = make_trainer(make_config("unused", "train.accumulate_steps=3"), sequences, tables, Worker())
    rows = trainer.batches.order(0)[0][:7]
    whole, parts = trainer.batches.batch(rows), trainer.parts(rows)
    assert [len(part.rows) for part in parts] == [3, 2, 2]
    assert torch.equal(torch.cat([part.rows.items_T for part in parts]), whole.rows.items_T)
    assert sum(part.num_targets for part in parts) == whole.num_targets
    assert [len(part.rows) for part in trainer.parts(rows[:2])] == [1, 1]


def test_planted_groups_are_learnt_much_better_than_chance(tmp_path: Path) -> None:
    sequences = make_sequences(160)
    config = make_config("unused", "train.epochs=10")
    trainer = make_trainer(config, sequences, tables_of(write_run(tmp_path, sequences), sequences), Worker())
    progress = train(trainer)
    chance = mean_metrics(np.arange(1, NUM_ITEMS + 1), NUM_ITEMS)
    best = progress.history[progress.best_epoch - 1]["validation"]
    assert best["seen_kept"]["ndcg@20"] > 2 * chance["ndcg@20"]
    assert best["seen_kept"]["hr@5"] > 5 * chance["hr@5"]
    first, last = progress.history[0]["loss"], progress.history[-1]["loss"]
    assert last["next_item"] < 0.7 * first["next_item"]
    assert set(first) == {"next_item", "cross_sequence", "intra_sequence", "total"}


def test_stops_when_the_metric_no_longer_gains(sequences: Sequences, tables: SemanticTables) -> None:
    config = make_config("unused", "train.epochs=50", "train.patience=2", "train.learning_rate=1e-12")
    progress = train(make_trainer(config, sequences, tables, Worker()))
    assert progress.epoch < 50
    assert progress.epoch - progress.best_epoch == 2
    assert [line["is_best"] for line in progress.history][-3:] == [True, False, False]


@pytest.mark.parametrize(("metric", "protocol"), [("mrr", "seen_removed"), ("hr@5", "seen_kept")])
def test_the_configured_metric_selects(
    sequences: Sequences, tables: SemanticTables, metric: str, protocol: str
) -> None:
    config = make_config("unused", f"train.metric={metric}", f"train.protocol={protocol}")
    progress = train(make_trainer(config, sequences, tables, Worker()))
    values = [line["validation"][protocol][metric] for line in progress.history]
    assert progress.best_value == max(values)
    assert progress.best_epoch == 1 + values.index(max(values))


@pytest.mark.parametrize("overrides", [(), EVERYTHING, (*EVERYTHING, *ENCODED)])
def test_the_future_changes_nothing_that_is_learnt(
    run: RunFolder, sequences: Sequences, overrides: tuple[str, ...]
) -> None:
    """Nor does it reach the places that a term looks up for itself."""
    config = make_config("unused", *overrides)
    one, other = (
        make_trainer(config, with_future, tables_of(run, with_future), Worker())
        for with_future in (sequences, with_other_future(sequences))
    )
    losses = [[line["loss"] for line in train(trainer).history] for trainer in (one, other)]
    assert losses[0] == losses[1]
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_every_step_is_told(config: Config, sequences: Sequences, tables: SemanticTables) -> None:
    trainer, told = make_trainer(config, sequences, tables, Worker()), []
    next(fit(trainer, Progress(), lambda num, _: told.append(num)))
    assert len(told) == trainer.batches.num_steps
    assert sum(told) == trainer.batches.num_targets == int(np.maximum(sequences.num_train - 1, 0).sum())


def test_gradients_are_scaled_down(sequences: Sequences, tables: SemanticTables) -> None:
    config = make_config("unused", "train.max_gradient_norm=1e-6", "train.epochs=1")
    trainer = make_trainer(config, sequences, tables, Worker())
    train(trainer)
    moments = [state["exp_avg"].norm() for state in trainer.optimiser.state.values()]
    assert 0 < float(torch.stack(moments).norm()) <= 1e-6


def test_a_loss_that_is_no_number_ends_training(config: Config, sequences: Sequences, tables: SemanticTables) -> None:
    trainer = make_trainer(config, sequences, tables, Worker())
    with torch.no_grad():
        trainer.model.encoder.catalogue.embedding.weight[5] = float("nan")
    with pytest.raises(StageError, match=r"The loss next_item is nan in epoch 1; use a lower train\.learning_rate"):
        train(trainer)


def test_nothing_to_train_is_said(config: Config, tables: SemanticTables) -> None:
    sequences = make_sequences(40, lengths=(2, 4))
    with pytest.raises(StageError, match="nothing to learn"):
        make_trainer(config, sequences, tables, Worker())


def test_nothing_to_select_by_is_said_before_training(
    config: Config, sequences: Sequences, tables: SemanticTables
) -> None:
    without = replace(sequences, num_validation=np.zeros_like(sequences.num_validation))
    with pytest.raises(StageError, match="No user has a validation item"):
        make_trainer(config, without, tables, Worker())
