"""Two processes over gloo against one with the same batches; dropout off, since workers draw their own masks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from synthetic import make_config, make_sequences, tables_of, write_run

from sracl_dist.artifacts import RunFolder
from sracl_dist.model.gather import gather_rows
from sracl_dist.train.loop import fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

NUM_USERS = 61
OVERRIDES = (
    "model.dropout=0",
    "objectives.intra_sequence.replacement_rate=1",
    "objectives.cross_sequence.weight=1",
    "objectives.intra_sequence.weight=1",
    "train.batch_rows=15",
    "train.epochs=2",
)


def run_worker(rank: int, world_size: int, location: str) -> None:
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{location}/rendezvous", rank=rank, world_size=world_size
        )
    sequences = make_sequences(NUM_USERS)
    # One neighbour each: the substitution draws from a list of one, the same on every worker.
    run = RunFolder(location)
    trainer = make_trainer(
        make_config(location, *OVERRIDES),
        sequences,
        tables_of(run, sequences),
        Worker(rank=rank, world_size=world_size),
    )
    progress = Progress()
    for _ in fit(trainer, progress):
        pass
    result = Path(location) / f"result-{world_size}-{rank}"
    save_file({name: value.contiguous() for name, value in trainer.model.state_dict().items()}, result)
    losses = [[*line["loss"].values(), line["gradient_norm"]] for line in progress.history]
    metrics = [list(line["validation"]["seen_kept"].values()) for line in progress.history]
    save_file({"losses": torch.tensor(losses), "metrics": torch.tensor(metrics)}, f"{result}.curve")
    if world_size > 1:
        torch.distributed.destroy_process_group()


def spawn(function: Any, world_size: int, *arguments: Any) -> None:
    context = torch.multiprocessing.start_processes(
        function, (world_size, *arguments), nprocs=world_size, join=False, start_method="spawn"
    )
    for _ in range(12):
        if context.join(timeout=10):
            return
    for process in context.processes:
        process.kill()
    pytest.fail("the workers did not end within two minutes")


def test_two_workers_equal_one(tmp_path: Path) -> None:
    write_run(tmp_path, make_sequences(NUM_USERS), num_neighbours=1)
    run_worker(0, 1, str(tmp_path))
    spawn(run_worker, 2, str(tmp_path))
    single, first, second = (load_file(tmp_path / f"result-{name}") for name in ("1-0", "2-0", "2-1"))
    for name, value in single.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(value.float(), first[name].float(), atol=2e-4, rtol=1e-3), name
    assert first["objectives.cross_sequence.bank.seen_U"].any()
    curve, parallel = load_file(tmp_path / "result-1-0.curve"), load_file(tmp_path / "result-2-0.curve")
    assert torch.allclose(curve["losses"], parallel["losses"], rtol=1e-3)
    assert torch.allclose(curve["metrics"], parallel["metrics"], atol=0.02)


def run_gradient(rank: int, world_size: int, location: str) -> None:
    """The gradient of a second step, when the bank knows the users of the first."""
    torch.set_num_threads(1)
    if world_size > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{location}/rendezvous", rank=rank, world_size=world_size
        )
    sequences = make_sequences(NUM_USERS)
    config = make_config(location, *OVERRIDES, "objectives.terms=[next_item,cross_sequence]")
    worker = Worker(rank=rank, world_size=world_size)
    trainer = make_trainer(config, sequences, tables_of(RunFolder(location), sequences), worker)
    for rows in trainer.batches.order(0):
        trainer.optimiser.zero_grad()
        total = trainer.parallel.train()(trainer.batches.batch(rows))["total"]
        (total * world_size).backward()
    gradients = {name: value.grad for name, value in trainer.model.named_parameters() if value.grad is not None}
    save_file(gradients, Path(location) / f"gradient-{world_size}-{rank}")
    if world_size > 1:
        torch.distributed.destroy_process_group()


def test_gradients_of_two_workers_equal_those_of_one(tmp_path: Path) -> None:
    write_run(tmp_path, make_sequences(NUM_USERS))
    run_gradient(0, 1, str(tmp_path))
    spawn(run_gradient, 2, str(tmp_path))
    single = load_file(tmp_path / "gradient-1-0")
    assert single["objectives.cross_sequence.synthesis.attend"].abs().max() > 1e-5
    for rank in range(2):
        for name, value in load_file(tmp_path / f"gradient-2-{rank}").items():
            assert torch.allclose(value, single[name], atol=1e-6, rtol=1e-4), name


def run_gather(rank: int, world_size: int, location: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{location}/rendezvous", rank=rank, world_size=world_size
    )
    everything = torch.arange(1.0, 11.0).view(5, 2)
    counts = (4, 0, 1)
    start = sum(counts[:rank])
    own = everything[start : start + counts[rank]].clone().requires_grad_()
    gathered = gather_rows(own, counts, rank)
    assert torch.equal(gathered, everything)
    (gathered.pow(2).sum() * (rank + 1)).backward()
    assert own.grad is not None
    assert torch.equal(own.grad, 2 * own.detach() * 6)  # 1 + 2 + 3: what the three workers' losses ask for
    torch.distributed.destroy_process_group()


def test_gathered_rows_bring_their_gradients_back(tmp_path: Path) -> None:
    spawn(run_gather, 3, str(tmp_path))
