from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic import from_histories, make_config, make_sequences, with_other_future

from sracl_dist.config import Config, parse_config
from sracl_dist.data.sequences import Sequences
from sracl_dist.errors import ConfigError
from sracl_dist.model.row_per_prefix import PrefixBatch, RowPerPrefix
from sracl_dist.model.tables import SemanticTables
from sracl_dist.train.loop import fit, make_batches, make_trainer
from sracl_dist.train.prefixes import PrefixBatches
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

REFERENCE = ("train.examples=prefixes", "objectives.cross_sequence.neighbour_states=encoded")


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
        assert max(step.num_targets for step in steps) <= 7
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


def test_training_learns_and_goes_on_from_its_checkpoint(
    sequences: Sequences, tables: SemanticTables, tmp_path: Path
) -> None:
    config = make_config("unused", *REFERENCE, "train.epochs=2")
    trainer = make_trainer(config, sequences, tables, Worker())
    assert isinstance(trainer.model, RowPerPrefix)
    told: list[int] = []
    for progress in fit(trainer, Progress(), lambda num, _: told.append(num)):
        if progress.epoch == 1:
            trainer.save(tmp_path / "state", progress)
    first, second = (line["loss"] for line in progress.history)
    assert second["total"] < first["total"]
    assert second["next_item"] < first["next_item"]
    assert sum(told) == 2 * trainer.batches.num_targets == 2 * make_batches(make_config(), sequences).num_targets

    resumed = make_trainer(config, sequences, tables, Worker())
    (continued,) = fit(resumed, resumed.load(tmp_path / "state", place="it", anew="begin anew"))
    assert continued.history[1]["loss"] == second


@pytest.mark.parametrize(
    ("override", "mend"),
    [
        ("train.num_workers=2", "train.num_workers is 2; use 1 with train.examples=prefixes."),
        ("train.precision=bfloat16", "train.precision is 'bfloat16'; use float32 with train.examples=prefixes."),
        ("model.repeat_bias=true", "model.repeat_bias is True; use false with train.examples=prefixes."),
        (
            "objectives.terms=[next_item, same_target]",
            "objectives.terms is ['next_item', 'same_target']; use only next_item, cross_sequence, intra_sequence with "
            "train.examples=prefixes.",
        ),
        (
            "objectives.next_item.softmax=sampled",
            "objectives.next_item.softmax is 'sampled'; use full with train.examples=prefixes.",
        ),
        ("objectives.next_item.horizon=2", "objectives.next_item.horizon is 2; use 1 with train.examples=prefixes."),
        (
            "objectives.cross_sequence.neighbour_states=bank",
            "objectives.cross_sequence.neighbour_states is 'bank'; use encoded with train.examples=prefixes.",
        ),
    ],
)
def test_what_the_reference_has_not_is_refused(override: str, mend: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config("unused", *REFERENCE, override)
    assert str(caught.value) == mend


def test_the_backbone_needs_no_neighbours() -> None:
    config: Config = make_config("unused", "train.examples=prefixes", "objectives.terms=[next_item]")
    assert parse_config({"run": {"dir": "unused"}, "data": {"interactions": ["a.csv"]}}).train.examples == "histories"
    assert config.objectives.cross_sequence.neighbour_states == "bank"
