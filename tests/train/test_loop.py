from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import NUM_ITEMS, make_config, make_sequences, tables_of, with_other_future, write_run

from sracl_dist.artifacts import RunFolder
from sracl_dist.config import Config
from sracl_dist.config.sections import OBJECTIVE_NAMES
from sracl_dist.data.sequences import Sequences
from sracl_dist.errors import StageError
from sracl_dist.evaluate.metrics import mean_metrics
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.loop import Trainer, fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

TIMES = ("wall_s", "examples_per_second")


def curve(progress: Progress) -> list[dict[str, Any]]:
    """What must repeat exactly: everything but times."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in progress.history]


def train(trainer: Trainer, progress: Progress | None = None) -> Progress:
    progress = progress or Progress()
    for _ in fit(trainer, progress):
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
ENCODED = ("objectives.cross_sequence.neighbour_states=encoded", "objectives.cross_sequence.synthesis=sampled")


@pytest.mark.parametrize("num_before", [1, 2])
@pytest.mark.parametrize("overrides", [(), EVERYTHING, (*SAMPLED, *ENCODED)], ids=["default", "everything", "sampled"])
def test_a_killed_and_resumed_run_ends_like_an_undisturbed_one(
    sequences: Sequences, tables: SemanticTables, tmp_path: Path, num_before: int, overrides: tuple[str, ...]
) -> None:
    config = make_config("unused", *overrides)
    undisturbed = make_trainer(config, sequences, tables, Worker())
    expected = train(undisturbed)

    first = make_trainer(config, sequences, tables, Worker())
    for progress in fit(first, Progress()):
        first.save(tmp_path / "state", progress)
        if progress.epoch == num_before:
            break
    torch.manual_seed(999)  # a new process starts with another random state
    second = make_trainer(config, sequences, tables, Worker())
    resumed = train(second, second.load(tmp_path / "state"))

    assert curve(resumed) == curve(expected)
    for name, value in undisturbed.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


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
