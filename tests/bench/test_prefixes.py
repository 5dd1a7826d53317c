"""The order and the rows of the baseline of training, and its steps."""

from collections import Counter

import numpy as np
import pytest
import torch
from synthetic import from_histories, make_config, make_sequences, with_other_future

from sracl_dist.bench.prefix_batches import PrefixBatches
from sracl_dist.bench.prefix_training import PrefixTraining
from sracl_dist.bench.row_per_prefix import PrefixBatch, RowPerPrefix
from sracl_dist.model.tables import SemanticTables
from sracl_dist.sequences import Sequences
from sracl_dist.train.loop import make_batches, make_trainer
from sracl_dist.train.worker import Worker


def epoch_of(batches: PrefixBatches, epoch: int) -> list[PrefixBatch]:
    return [batches.batch(rows) for rows in batches.order(epoch)]


@pytest.mark.parametrize("max_length", [1, 4, 50])
def test_every_training_prefix_is_there_once_per_epoch(max_length: int) -> None:
    sizes = [0, 1, 2, 3, 9, 30]  # of the histories, the last two items of which are held out
    ends = np.cumsum(sizes)
    histories = [np.arange(end - size + 1, end + 1) for size, end in zip(sizes, ends, strict=True)]
    sequences = from_histories(histories, num_items=int(ends[-1]))
    expected: Counter[tuple[int, tuple[int, ...], int]] = Counter()
    for user, history in enumerate(histories):
        training = history[:-2].tolist()
        for stop in range(1, len(training)):
            expected[user, tuple(training[:stop][-max_length:]), training[stop]] += 1
    batches = PrefixBatches(sequences, max_length, 7, 0)
    assert batches.num_targets == expected.total()
    for epoch in range(2):
        found: Counter[tuple[int, tuple[int, ...], int]] = Counter()
        steps = epoch_of(batches, epoch)
        assert len(steps) == batches.num_steps
        assert max(len(step.rows) for step in steps) <= 7
        for step in steps:
            rows = [tuple(row.tolist()) for row in step.rows.items_T.split(step.rows.lengths_B.tolist())]
            found.update(zip(step.users_B.tolist(), rows, step.targets_B.tolist(), strict=True))
        assert found == expected


def test_no_validation_or_test_item_reaches_a_batch() -> None:
    sequences = make_sequences(60)
    changed = with_other_future(sequences)
    batches = [PrefixBatches(each, 6, 16, 0) for each in (sequences, changed)]
    for one, other in zip(*(epoch_of(each, 0) for each in batches), strict=True):
        assert torch.equal(one.rows.items_T, other.rows.items_T)
        assert torch.equal(one.targets_B, other.targets_B)


def test_order_depends_on_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(PrefixBatches(make_sequences(20), 6, 16, seed).order(epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_nothing_to_train_is_an_empty_epoch() -> None:
    batches = PrefixBatches(from_histories([np.arange(1, 4)], num_items=3), 6, 16, 0)
    assert (batches.num_targets, batches.num_steps, batches.order(0)) == (0, 0, [])


def test_training_learns(sequences: Sequences, tables: SemanticTables) -> None:
    config = make_config("unused", "objectives.cross_sequence.neighbour_states=encoded")
    training = PrefixTraining(config, sequences, tables, torch.device("cpu"))
    assert training.batches.num_targets == make_batches(config, sequences).num_targets
    epochs = [[training.step(rows) for rows in training.order(epoch)] for epoch in range(2)]
    for name in ("total", "next_item"):
        first, second = (sum(float(terms[name]) for terms in steps) for steps in epochs)
        assert second < first


def test_a_step_is_that_of_adam_on_the_clipped_gradient(sequences: Sequences, tables: SemanticTables) -> None:
    config = make_config(
        "unused",
        "objectives.terms=[next_item]",
        "train.max_gradient_norm=0.01",
        "model.dropout=0",
        "model.attention_dropout=0",
    )
    training = PrefixTraining(config, sequences, tables, torch.device("cpu"))
    model = make_trainer(config, sequences, tables, Worker()).model  # the same seed, hence the same weights
    rows = training.order(0)[0]
    loss = RowPerPrefix(model, tables, config.model.max_length)(training.batches.batch(rows))["next_item"]
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    assert norm > 0.01
    torch.optim.Adam(model.parameters(), config.train.learning_rate).step()
    assert float(training.step(rows)["next_item"]) == pytest.approx(float(loss.detach()))
    for name, weight in training.model.named_parameters():
        assert torch.allclose(weight, model.get_parameter(name), atol=1e-6), name
