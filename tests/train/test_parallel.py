"""Two and four processes over gloo against one with the same batches; nothing is drawn: workers draw for themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from synthetic import make_config, make_sequences, tables_of, write_run

from sracl_dist.columns import PAD
from sracl_dist.model.gather import gather_rows
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives import same_target
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.batches import TrainingBatches
from sracl_dist.train.loop import Trainer, fit, make_trainer
from sracl_dist.train.state import Progress
from sracl_dist.train.worker import Worker

SEQUENCES = make_sequences(61)
OVERRIDES = (
    "model.dropout=0",
    "model.attention_dropout=0",
    "objectives.intra_sequence.replacement_rate=1",
    "objectives.intra_sequence.num_neighbours=1",  # the substitution draws from a list of one
    "objectives.cross_sequence.weight=1",
    "objectives.intra_sequence.weight=1",
    "train.batch_rows=15",
    "train.epochs=2",
)
OPTIONS = (
    "model.item_text=true",
    "model.repeat_bias=true",
    "objectives.next_item.horizon=2",
    "train.warmup_epochs=1.5",
    "train.decay=linear",
)
TERMS = "objectives.terms=[next_item,cross_sequence"
ENCODED = "objectives.cross_sequence.neighbour_states=encoded"
SAMPLED = ("objectives.next_item.softmax=sampled", "objectives.next_item.num_sampled=24", "model.item_text=true")
LONELY = "train.batch_rows=2"
"""Rows do not share out evenly: in the last step one worker has the only row, and the others none."""
CASES = {
    "bank": (f"{TERMS}]",),
    "encoded": (f"{TERMS}]", ENCODED, "objectives.cross_sequence.negatives=all", *OPTIONS),
    "all": (f"{TERMS},intra_sequence,same_target]", "objectives.same_target.weight=1"),
    "lonely sasrec": (f"{TERMS},intra_sequence,same_target]", ENCODED, LONELY),
    "lonely gru4rec": (f"{TERMS},intra_sequence,same_target]", LONELY, "model.encoder=gru4rec", *OPTIONS),
    "lonely hstu": (f"{TERMS},intra_sequence,same_target]", LONELY, "model.encoder=hstu"),
}


def work(rank: int, location: str, world_size: int) -> None:
    """What one of several processes does."""
    torch.set_num_threads(1)
    meeting = f"file://{location}/rendezvous-{world_size}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    if world_size == 2:
        gather(rank)
    worker = Worker(rank=rank, world_size=world_size)
    share_a_bank(worker, location)
    save_training(worker, location)
    save_gradients(worker, location, setattr)
    torch.rand = evenly  # type: ignore[assignment]  # of which all workers draw the same samples
    save_sampled(worker, location)
    torch.distributed.destroy_process_group()


def share_a_bank(worker: Worker, location: str) -> None:
    """What one writes the others read."""
    bank = make(worker, location, f"{TERMS}]").model.objectives["cross_sequence"].bank
    assert not bank.seen_U.any()
    assert not bank.states_UD.any()
    worker.sum_over_workers(torch.zeros(1))
    bank.write(torch.tensor([worker.rank]), torch.full((1, bank.states_UD.shape[1]), 1.0 + worker.rank))
    worker.sum_over_workers(torch.zeros(1))
    assert bank.seen_U.nonzero().flatten().tolist() == list(range(worker.world_size))
    assert bank.states_UD[: worker.world_size, 0].tolist() == [1.0 + rank for rank in range(worker.world_size)]


@dataclass(frozen=True)
class Results:
    folder: Path
    num_workers: int


@pytest.fixture(scope="module", params=[2, 4])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What several workers and a single one have left."""
    folder: Path = tmp_path_factory.mktemp("parallel")
    write_run(folder, SEQUENCES)
    save_training(Worker(), str(folder))
    with pytest.MonkeyPatch.context() as patch:
        save_gradients(Worker(), str(folder), patch.setattr)
        patch.setattr(torch, "rand", evenly)
        save_sampled(Worker(), str(folder))
    run_together(folder, request.param)
    return Results(folder, request.param)


def run_together(folder: Path, num_workers: int) -> None:
    context = torch.multiprocessing.start_processes(
        work, (str(folder), num_workers), nprocs=num_workers, join=False, start_method="spawn"
    )
    for _ in range(24):
        if context.join(timeout=10):
            return
    for process in context.processes:
        process.kill()
    pytest.fail(f"the {num_workers} workers did not end within four minutes")


def make(worker: Worker, location: str, *overrides: str) -> Trainer:
    config = make_config(location, *OVERRIDES, *overrides)
    return make_trainer(config, SEQUENCES, tables_of(RunFolder(location), SEQUENCES), worker)


def save_training(worker: Worker, location: str) -> None:
    """From the beginning, and from the middle of the second epoch, where a single worker has saved."""
    trainer = make(worker, location, *OPTIONS)
    progress, halfway = Progress(), trainer.batches.num_steps + 2
    middle = Path(location) / "middle"
    for _ in fit(trainer, progress, is_due=lambda: worker.world_size == 1 and progress.step == halfway):
        if progress.epoch_step:
            trainer.save(middle, progress)
    save_curve(trainer, progress, Path(location) / f"trained-{worker.world_size}-{worker.rank}")
    if worker.world_size > 1:
        trainer = make(worker, location, *OPTIONS)
        progress = trainer.load(middle, place="it", anew="begin anew")
        assert progress.step == halfway
        for _ in fit(trainer, progress):
            pass
        save_curve(trainer, progress, Path(location) / f"resumed-{worker.world_size}-{worker.rank}")


def save_sampled(worker: Worker, location: str) -> None:
    """With embeddings that are read and updated by rows."""
    trainer = make(worker, location, *SAMPLED)
    progress = Progress()
    for _ in fit(trainer, progress):
        pass
    save_curve(trainer, progress, Path(location) / f"sampled-{worker.world_size}-{worker.rank}")


def save_curve(trainer: Trainer, progress: Progress, result: Path) -> None:
    save_file({name: value.contiguous() for name, value in trainer.model.state_dict().items()}, result)
    losses = [[*line["loss"].values(), line["gradient_norm"]] for line in progress.history]
    metrics = [list(line["validation"]["seen_kept"].values()) for line in progress.history]
    save_file({"losses": torch.tensor(losses), "metrics": torch.tensor(metrics)}, f"{result}.curve")


def save_gradients(worker: Worker, location: str, patch: Callable[[Any, str, Any], None]) -> None:
    """In every case the gradient of an epoch's last step, when a bank knows the users of those before."""
    patch(torch, "rand", lambda *size, **_: torch.zeros(*size) + 0.3)  # same_target draws its places with it
    patch(same_target, "_one_trained_position_per_row", first_trained_positions)
    for name, overrides in CASES.items():
        trainer = make(worker, location, *overrides)
        order = trainer.batches.order(0)
        for rows in order[-2:] if name.startswith("lonely") else order:
            trainer.optimiser.zero_grad()
            total = trainer.parallel.train()(trainer.batches.batch(rows))["total"]
            (total * worker.world_size).backward()
        gradients = {key: value.grad for key, value in trainer.model.named_parameters() if value.grad is not None}
        save_file(gradients, Path(location) / f"gradient-{worker.world_size}-{worker.rank}-{name}")


def evenly(*size: Any, **_: Any) -> torch.Tensor:
    return torch.linspace(0.05, 0.95, torch.empty(*size).numel()).view(torch.empty(*size).shape)


def first_trained_positions(batch: Batch) -> torch.Tensor:
    trained = (batch.targets_T != PAD).nonzero().flatten()
    rows = torch.searchsorted(batch.rows.starts_B, trained, right=True)
    return trained[rows != torch.cat([torch.zeros(1), rows])[:-1]]


def gather(rank: int) -> None:
    everything = torch.arange(1.0, 11.0).view(5, 2)
    for counts in ((4, 1), (0, 5)):
        start = sum(counts[:rank])
        own = everything[start : start + counts[rank]].clone().requires_grad_()
        gathered = gather_rows(own, counts, rank)
        assert torch.equal(gathered, everything)
        (gathered.pow(2).sum() * (rank + 1)).backward()
        assert own.grad is not None
        assert torch.equal(own.grad, 2 * own.detach() * 3)  # 1 + 2: what the losses of both workers ask for


@pytest.mark.parametrize("kind", ["trained", "resumed", "sampled"])
def test_workers_learn_what_one_learns(results: Results, kind: str) -> None:
    """Also when they go on within an epoch that one has begun."""
    folder, num_workers = results.folder, results.num_workers
    alone = "sampled" if kind == "sampled" else "trained"
    single = load_file(folder / f"{alone}-1-0")
    first, *others = (load_file(folder / f"{kind}-{num_workers}-{rank}") for rank in range(num_workers))
    for name, value in single.items():
        for other in others:  # the bank among them
            assert torch.equal(first[name], other[name]), name
        assert torch.allclose(value.float(), first[name].float(), atol=2e-4, rtol=1e-3), name
    assert first["objectives.cross_sequence.bank.seen_U"].any()
    curve = load_file(folder / f"{alone}-1-0.curve")
    parallel = load_file(folder / f"{kind}-{num_workers}-0.curve")
    assert torch.allclose(curve["losses"], parallel["losses"], rtol=1e-3)
    assert torch.allclose(curve["metrics"], parallel["metrics"], atol=0.02)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_workers_equal_those_of_one(results: Results, name: str) -> None:
    folder, num_workers = results.folder, results.num_workers
    single = load_file(folder / f"gradient-1-0-{name}")
    if "lonely" not in name:  # a user alone has nobody to be contrasted with
        assert single["objectives.cross_sequence.synthesis.attend"].abs().max() > 1e-5
    assert single["encoder.catalogue.embedding.weight"].abs().max() > 1e-3
    for rank in range(num_workers):
        gradients = load_file(folder / f"gradient-{num_workers}-{rank}-{name}")
        assert gradients.keys() == single.keys()
        for key, value in gradients.items():
            assert torch.allclose(value, single[key], atol=1e-6, rtol=1e-4), key


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_workers_share_out_every_user_once_in_steps_of_the_same_number(world_size: int) -> None:
    workers = [TrainingBatches(SEQUENCES, 6, 15, 3, rank=rank, world_size=world_size) for rank in range(world_size)]
    orders = [batches.order(1) for batches in workers]
    assert len({len(order) for order in orders}) == 1
    users = []
    for steps in zip(*orders, strict=True):
        parts = [batches.batch(rows) for batches, rows in zip(workers, steps, strict=True)]
        own = torch.cat([part.own_history_users() for part in parts])
        for part in parts:  # every worker knows of all
            assert torch.equal(part.history_users_G, own)
            assert part.histories_per_rank == tuple(len(other.histories_H) for other in parts)
        users += own.tolist()
    assert sorted(users) == np.flatnonzero(SEQUENCES.num_train > 0).tolist()


def test_lonely_rows_leave_a_worker_without() -> None:
    batches = TrainingBatches(SEQUENCES, 6, 2, 3, rank=1, world_size=2)
    assert len(batches.batch(batches.order(0)[0]).rows) == 1
    assert len(batches.batch(batches.order(0)[-1]).rows) == 0
