"""Training on a GPU learns what training on a processor learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from on_gpu import GPU, needs_gpu
from synthetic import make_config, make_sequences, tables_of, write_run

from sracl_dist.bench.prefix_training import PrefixTraining
from sracl_dist.config.sections import OBJECTIVE_NAMES
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences
from sracl_dist.train.local import train_here
from sracl_dist.train.loop import Trainer, fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.trackers import Trackers
from sracl_dist.train.worker import Worker

pytestmark = needs_gpu

# Nothing is drawn on the device, whose generator has other numbers, nor anything behind a draw.
STILL = (
    "model.dropout=0",
    "model.attention_dropout=0",
    "objectives.intra_sequence.replacement_rate=0",
    "train.epochs=2",
    "train.batch_rows=16",
)
TERMS = f"objectives.terms=[{','.join(OBJECTIVE_NAMES)}]"
FIRST_TERMS = "objectives.terms=[next_item,cross_sequence,intra_sequence]"
ENCODED = "objectives.cross_sequence.neighbour_states=encoded"
SAME = {
    "next item": ("objectives.terms=[next_item]",),
    "text": (FIRST_TERMS, "model.item_text=true", "model.repeat_bias=true", "objectives.next_item.horizon=2"),
    "encoded": (FIRST_TERMS, ENCODED),
    "parts": (FIRST_TERMS, "train.accumulate_steps=2"),
    "gru4rec": (FIRST_TERMS, "model.encoder=gru4rec"),
    "hstu": (FIRST_TERMS, "model.encoder=hstu"),
}
OTHER_NUMBERS = {
    "sampled": ("objectives.next_item.softmax=sampled", "objectives.next_item.num_sampled=20"),
    "all": (TERMS,),
    "dropout": (FIRST_TERMS, "model.dropout=0.1", "model.attention_dropout=0.1"),
}


def train(trainer: Trainer, progress: Progress | None = None) -> list[dict[str, Any]]:
    progress = progress or Progress()
    for _ in fit(trainer, progress):
        pass
    return progress.history


def trainer_on(
    device: torch.device, sequences: Sequences, tables: SemanticTables, overrides: tuple[str, ...]
) -> Trainer:
    return make_trainer(make_config("unused", *STILL, *overrides), sequences, tables, Worker(device=device))


@pytest.mark.parametrize("overrides", SAME.values(), ids=SAME)
def test_the_curve_is_that_of_a_processor(
    sequences: Sequences, tables: SemanticTables, overrides: tuple[str, ...]
) -> None:
    there = train(trainer_on(GPU, sequences, tables, overrides))
    here = train(trainer_on(torch.device("cpu"), sequences, tables, overrides))
    for on_gpu, on_cpu in zip(there, here, strict=True):
        assert on_gpu["loss"] == pytest.approx(on_cpu["loss"], rel=1e-3)
        assert on_gpu["gradient_norm"] == pytest.approx(on_cpu["gradient_norm"], rel=1e-2)
        assert on_gpu["gpu_memory_bytes"] > 0
        assert on_cpu["gpu_memory_bytes"] is None


def test_a_row_per_prefix_is_trained_as_on_a_processor(sequences: Sequences, tables: SemanticTables) -> None:
    config = make_config("unused", *STILL, FIRST_TERMS, ENCODED)
    there, here = (PrefixTraining(config, sequences, tables, device) for device in (GPU, torch.device("cpu")))
    for rows in here.order(0):
        on_gpu, on_cpu = there.step(rows), here.step(rows)
        assert {name: float(value) for name, value in on_gpu.items()} == pytest.approx(
            {name: float(value) for name, value in on_cpu.items()}, rel=1e-3
        )


@pytest.mark.parametrize("overrides", OTHER_NUMBERS.values(), ids=OTHER_NUMBERS)
def test_with_other_random_numbers_it_is_much_the_same(
    sequences: Sequences, tables: SemanticTables, overrides: tuple[str, ...]
) -> None:
    there = train(trainer_on(GPU, sequences, tables, overrides))
    here = train(trainer_on(torch.device("cpu"), sequences, tables, overrides))
    for on_gpu, on_cpu in zip(there, here, strict=True):
        assert on_gpu["loss"]["total"] == pytest.approx(on_cpu["loss"]["total"], rel=0.05)


def test_bfloat16_comes_close(sequences: Sequences, tables: SemanticTables) -> None:
    exact = train(trainer_on(GPU, sequences, tables, (FIRST_TERMS,)))
    rounded = train(trainer_on(GPU, sequences, tables, (FIRST_TERMS, "train.precision=bfloat16")))
    losses = [line["loss"]["total"] for line in rounded]
    assert losses == pytest.approx([line["loss"]["total"] for line in exact], rel=0.03)
    assert losses != [line["loss"]["total"] for line in exact]


@pytest.mark.parametrize("goes_on", [GPU, torch.device("cpu")], ids=str)
def test_a_checkpoint_goes_on_anywhere(
    sequences: Sequences, tables: SemanticTables, tmp_path: Path, goes_on: torch.device
) -> None:
    expected = train(trainer_on(GPU, sequences, tables, (FIRST_TERMS,)))
    first = trainer_on(GPU, sequences, tables, (FIRST_TERMS,))
    for progress in fit(first, Progress(), is_due=lambda: True):
        if progress.step == 2:
            first.save(tmp_path / "state", progress)
            break
    second = trainer_on(goes_on, sequences, tables, (FIRST_TERMS,))
    resumed = train(second, second.load(tmp_path / "state", place="it", anew="begin anew"))
    assert [line["epoch"] for line in resumed] == [1, 2]
    for line, whole in zip(resumed, expected, strict=True):
        assert line["loss"] == pytest.approx(whole["loss"], rel=1e-3)


def test_the_stage_trains_there(tmp_path: Path) -> None:
    sequences = make_sequences(40)
    run: RunFolder = write_run(tmp_path / "run", sequences)
    config = make_config(tmp_path / "run", TERMS, "train.gpus_per_worker=1", "train.precision=bfloat16")
    progress, read_best = train_here(config, run, Trackers(config, run))
    assert progress.epoch == 3
    assert progress.history[-1]["gpu_memory_bytes"] > 0
    assert read_best("encoder.safetensors")
    assert progress.history[-1]["loss"]["next_item"] < progress.history[0]["loss"]["next_item"]
    assert tables_of(run, sequences) is not None
