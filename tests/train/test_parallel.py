"""Two processes over gloo against one with the same batches; nothing is drawn, since workers draw for themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from synthetic import make_config, make_sequences, tables_of, write_run

from sracl_dist.artifacts import RunFolder
from sracl_dist.columns import PAD
from sracl_dist.model.gather import gather_rows
from sracl_dist.model.inputs import Batch
from sracl_dist.model.objectives import same_target
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
"""Rows do not share out evenly: in the last step one worker has the only row, and the other none."""
CASES = {
    "bank": (f"{TERMS}]",),
    "encoded": (f"{TERMS}]", ENCODED, "objectives.cross_sequence.negatives=all", *OPTIONS),
    "all": (f"{TERMS},intra_sequence,same_target]", "objectives.same_target.weight=1"),
    "lonely sasrec": (f"{TERMS},intra_sequence,same_target]", ENCODED, LONELY),
    "lonely gru4rec": (f"{TERMS},intra_sequence,same_target]", LONELY, "model.encoder=gru4rec", *OPTIONS),
    "lonely hstu": (f"{TERMS},intra_sequence,same_target]", LONELY, "model.encoder=hstu"),
}


def work(rank: int, location: str) -> None:
    """What one of two processes does."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{location}/rendezvous", rank=rank, world_size=2)
    gather(rank)
    worker = Worker(rank=rank, world_size=2)
    save_training(worker, location, "trained", *OPTIONS)
    save_gradients(worker, location, setattr)
    torch.rand = evenly  # type: ignore[assignment]  # of which all workers draw the same samples
    save_training(worker, location, "sampled", *SAMPLED)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers and a single one have left."""
    folder: Path = tmp_path_factory.mktemp("parallel")
    write_run(folder, SEQUENCES)
    context = torch.multiprocessing.start_processes(work, (str(folder),), nprocs=2, join=False, start_method="spawn")
    save_training(Worker(), str(folder), "trained", *OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        save_gradients(Worker(), str(folder), patch.setattr)
        patch.setattr(torch, "rand", evenly)
        save_training(Worker(), str(folder), "sampled", *SAMPLED)
    for _ in range(24):
        if context.join(timeout=10):
            return folder
    for process in context.processes:
        process.kill()
    pytest.fail("the workers did not end within four minutes")


def make(worker: Worker, location: str, *overrides: str) -> Trainer:
    config = make_config(location, *OVERRIDES, *overrides)
    return make_trainer(config, SEQUENCES, tables_of(RunFolder(location), SEQUENCES), worker)


def save_training(worker: Worker, location: str, name: str, *overrides: str) -> None:
    trainer = make(worker, location, *overrides)
    progress = Progress()
    for _ in fit(trainer, progress):
        pass
    result = Path(location) / f"{name}-{worker.world_size}-{worker.rank}"
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


@pytest.mark.parametrize("training", ["trained", "sampled"])
def test_two_workers_learn_what_one_learns(results: Path, training: str) -> None:
    single, first, second = (load_file(results / f"{training}-{name}") for name in ("1-0", "2-0", "2-1"))
    for name, value in single.items():
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(value.float(), first[name].float(), atol=2e-4, rtol=1e-3), name
    assert first["objectives.cross_sequence.bank.seen_U"].any()
    curve, parallel = (load_file(results / f"{training}-{number}-0.curve") for number in (1, 2))
    assert torch.allclose(curve["losses"], parallel["losses"], rtol=1e-3)
    assert torch.allclose(curve["metrics"], parallel["metrics"], atol=0.02)


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_two_workers_equal_those_of_one(results: Path, name: str) -> None:
    single = load_file(results / f"gradient-1-0-{name}")
    if "lonely" not in name:  # a user alone has nobody to be contrasted with
        assert single["objectives.cross_sequence.synthesis.attend"].abs().max() > 1e-5
    assert single["encoder.catalogue.embedding.weight"].abs().max() > 1e-3
    for rank in range(2):
        gradients = load_file(results / f"gradient-2-{rank}-{name}")
        assert gradients.keys() == single.keys()
        for key, value in gradients.items():
            assert torch.allclose(value, single[key], atol=1e-6, rtol=1e-4), key


def test_lonely_rows_leave_a_worker_without() -> None:
    batches = TrainingBatches(SEQUENCES, 6, 2, 3, rank=1, world_size=2)
    assert len(batches.batch(batches.order(0)[0]).rows) == 1
    assert len(batches.batch(batches.order(0)[-1]).rows) == 0
