"""What is counted is what is there; the figures of whole processes are checked in docs/scale-training.md."""

from pathlib import Path

import pytest
import torch
from synthetic import make_config, make_sequences, tables_of, write_run
from torch import Tensor

from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.estimate import (
    Estimate,
    Part,
    Sizes,
    estimate,
    require_memory,
    sizes_of,
)
from sracl_dist.train.loop import make_trainer
from sracl_dist.train.worker import Worker

SAMPLED = "objectives.next_item.softmax=sampled"
LARGE = Sizes(
    num_items=3_000_000, num_users=1_000_000, num_places=10_000_000, item_vector_width=384, user_vector_width=384
)


FEW = ("model.width=2", "model.num_heads=1", "objectives.cross_sequence.neighbours=random")


def bytes_of(need: Estimate, name: str) -> int:
    return sum(part.num_bytes for part in (*need.host, *need.device, *need.machine) if name in part.name)


def config_of(*overrides: str) -> Config:
    return make_config("unused", "objectives.terms=[next_item]", "model.width=64", *overrides)


@pytest.mark.parametrize("softmax", ["full", "sampled"])
@pytest.mark.parametrize("item_text", [False, True])
def test_lasting_parts_are_the_tensors_that_are_there(tmp_path: Path, softmax: str, item_text: bool) -> None:
    sequences = make_sequences(50)
    run = write_run(tmp_path, sequences)
    overrides = ("objectives.terms=[next_item,cross_sequence]", f"objectives.next_item.softmax={softmax}")
    config = make_config(tmp_path, *overrides, f"model.item_text={item_text}", "neighbours.num_neighbours=4")
    sizes = sizes_of(config, run, sequences)
    assert sizes == Sizes(
        num_items=48,
        num_users=50,
        num_places=len(sequences.items),
        item_vector_width=8 * item_text,
        user_vector_width=8,
    )
    need = estimate(config, sizes, on_gpu=False)
    trainer = make_trainer(config, sequences, tables_of(run, sequences), Worker())
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    trainer.optimiser.step()

    def size_of(*tensors: Tensor) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    buffers = dict(trainer.model.named_buffers())
    weight = trainer.model.catalogue.embedding.weight
    moments = [trainer.optimiser.state[weight][name] for name in ("exp_avg", "exp_avg_sq")]
    assert bytes_of(need, "embeddings and their moments") == size_of(weight, *moments)
    assert bytes_of(need, "the bank") == size_of(*trainer.model.memory().values())
    assert bytes_of(need, "users") == bytes_of(need, "the bank"), "what else there is for users lies in files"
    tables = trainer.model.objectives["cross_sequence"].tables
    shared = [sequences.items, sequences.offsets[1:], sequences.num_train, sequences.num_validation]
    shared += [tables.user_neighbours, tables.user_vectors, *([tables.item_vectors] if item_text else [])]
    assert need.file_bytes == sum(values.nbytes for values in shared)
    text = buffers.get("encoder.catalogue.text.centred_VP")
    assert bytes_of(need, "text vectors") == (0 if text is None else size_of(text))
    assert (text is None) == (softmax == "sampled" or not item_text)
    lookups = [buffers[f"encoder.catalogue.{name}"] for name in ("candidates_C", "place_V")]
    assert size_of(*lookups) < bytes_of(need, "lookups") < 10 * size_of(*lookups)


def test_the_gradient_of_all_items_is_spared_by_sampling() -> None:
    full, sampled = (estimate(config_of(*more), LARGE, on_gpu=False) for more in ((), (SAMPLED,)))
    table = 4 * 3_000_001 * 64
    assert bytes_of(full, "gradient of all items") == 2 * table
    assert bytes_of(sampled, "gradient of all items") == 0
    assert 3 * table < sampled.host_bytes < full.host_bytes
    assert not sampled.device


def test_a_validation_has_tiles_of_scores_for_each_thread_whatever_the_catalogue() -> None:
    def scores(num_items: int, *overrides: str, on_gpu: bool = False) -> int:
        # Steps so small that a validation is what takes the most.
        few = ("train.batch_rows=1", "model.max_length=2", SAMPLED, *overrides)
        sizes = Sizes(num_items=num_items, num_users=1_000, num_places=10_000)
        return bytes_of(estimate(config_of(*few), sizes, on_gpu=on_gpu), "scores in validation")

    one = scores(100_000)
    tile, waiting = 4 * 256 * 2048, 4 * 4096 * 256
    pairs = 32_768 * 64 * (8 + 8 + 4)
    assert 2 * tile + waiting + pairs < one < 2 * (2 * tile + waiting + pairs)
    assert scores(10_000_000) == one
    assert scores(100_000, "train.cpus_per_worker=4") == 4 * one
    assert scores(10_000_000, on_gpu=True) == scores(100_000, on_gpu=True) > 4 * 4 * 4096 * 16_384


def test_finished_representations_are_another_table_where_items_have_texts() -> None:
    plain, texts = (
        estimate(config_of(SAMPLED, *more), LARGE, on_gpu=False) for more in ((), ("model.item_text=true",))
    )
    table, piece = 4 * 3_000_001 * 64, 4 * 16_384 * (384 + 64)
    assert bytes_of(plain, "finished representations") == 0
    assert bytes_of(texts, "finished representations") == table + piece


def test_what_a_step_has_shrinks_with_workers_and_not_with_items() -> None:
    small = Sizes(num_items=10, num_users=1_000_000, num_places=10_000_000)
    names = [SAMPLED, "train.batch_rows=4096"]
    one, four = (estimate(config_of(*names, f"train.num_workers={n}"), small, on_gpu=False) for n in (1, 4))
    assert bytes_of(one, "activations") == 4 * bytes_of(four, "activations") > 0


def test_on_a_gpu_tables_are_there_and_the_log_is_not() -> None:
    need = estimate(config_of(SAMPLED), LARGE, on_gpu=True)
    table = 4 * 3_000_001 * 64
    assert need.device_bytes > 3 * table
    assert sum(part.num_bytes for part in need.host if part.name == "the log") > 4 * 10_000_000
    assert "the log" not in [part.name for part in need.device]
    assert need.line(2).startswith(f"needs about {need.host_bytes / 1e9:.1f} GB of memory and ")
    assert "for each of 2 workers" in need.line(2)
    assert "GB) for item embeddings and their moments; on each machine once 0.1 GB of tables in files" in need.line(1)


def test_the_bank_is_once_on_each_machine_but_on_every_gpu() -> None:
    cross = "objectives.terms=[next_item,cross_sequence]"
    sizes = Sizes(num_items=1_000, num_users=50_000_000, num_places=10**9, item_vector_width=384, user_vector_width=384)
    need, on_gpu = (estimate(config_of(SAMPLED, cross), sizes, on_gpu=there) for there in (False, True))
    bank, vectors = 50_000_000 * (4 * 64 + 1), 50_000_000 * 4 * 384
    assert [part.num_bytes for part in need.machine] == [bank]
    assert on_gpu.device_bytes > bank + vectors
    assert on_gpu.machine == ()
    assert need.file_bytes == on_gpu.file_bytes > 4 * 10**9 + vectors
    assert "on each machine once 12.8 GB for the bank of users' states and 8" in need.line(8)
    require_memory(need, workers_here=8, host_bytes=8 * need.host_bytes + bank, device_bytes=None)
    with pytest.raises(StageError, match=r"the largest part is [0-9.]+ GB for the log"):
        require_memory(need, workers_here=8, host_bytes=8 * need.host_bytes + bank - 1, device_bytes=None)


def test_what_does_not_fit_is_refused_with_the_largest_part_and_its_mend() -> None:
    need = estimate(config_of(), LARGE, on_gpu=False)
    require_memory(need, workers_here=1, host_bytes=need.host_bytes, device_bytes=None)
    with pytest.raises(StageError) as caught:
        require_memory(need, workers_here=2, host_bytes=2 * need.host_bytes - 1, device_bytes=None)
    amount = f"{2 * need.host_bytes / 1e9:.1f} GB"
    assert str(caught.value) == (
        f"Training needs about {amount} of memory for 2 workers and {amount} are there; the largest part is 4.6 GB for "
        f"item embeddings and their moments: set objectives.next_item.softmax=sampled, or a smaller model.width."
    )


@pytest.mark.parametrize(
    ("overrides", "mend"),
    [
        ((SAMPLED,), "set a smaller model.width, or train with fewer items"),
        ((SAMPLED, "objectives.terms=[next_item,cross_sequence]", *FEW), "num_neigh"),
        ((SAMPLED, "train.batch_rows=1000000"), "set a smaller train.batch_rows, or more train.num_workers"),
    ],
)
def test_the_mend_is_that_of_the_largest_part(overrides: tuple[str, ...], mend: str) -> None:
    sizes = Sizes(
        num_items=3_000_000, num_users=50_000_000, num_places=500_000_000, item_vector_width=384, user_vector_width=384
    )
    need = estimate(config_of(*overrides), sizes, on_gpu=False)
    parts = tuple(part for part in need.host if part.name != "the log")
    with pytest.raises(StageError, match=mend):
        require_memory(Estimate(host=parts, device=()), workers_here=1, host_bytes=10**6, device_bytes=None)


def test_the_gpu_is_one_workers_own() -> None:
    part = Part(name="something", num_bytes=5 * 10**9, mend="make it small")
    need = Estimate(host=(part,), device=(part,))
    require_memory(need, workers_here=2, host_bytes=10**10, device_bytes=5 * 10**9)
    with pytest.raises(StageError, match=r"5\.0 GB of GPU memory and 4\.0 GB are there"):
        require_memory(need, workers_here=2, host_bytes=10**10, device_bytes=4 * 10**9)


def test_vectors_that_are_not_read_have_no_width(tmp_path: Path) -> None:
    sequences = make_sequences(5)
    sizes = sizes_of(config_of(), RunFolder(str(tmp_path)), sequences)
    assert (sizes.item_vector_width, sizes.user_vector_width) == (0, 0)
