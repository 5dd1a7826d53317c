"""How much memory the training workers of a machine take: each for itself, and all together.

A log is generated and prepared, with vectors and neighbours that mean nothing (see bench/tables.py). Then so many
processes train on it together, over gloo and without Ray; after some steps each tells what its memory is: what is no
file's, and pages of files and of memory that others may have too. The machine's is the sum over processes in which
every page counts once.
"""

import multiprocessing
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from sracl_dist.bench.machine import BYTES_PER_GB
from sracl_dist.bench.synthetic_log import SyntheticLogSettings, write_log
from sracl_dist.bench.tables import prepared_tables
from sracl_dist.config import Config, parse_config
from sracl_dist.config.sections import require
from sracl_dist.observe import say
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.loop import train_step
from sracl_dist.train.start import start_trainer
from sracl_dist.train.validation import validate
from sracl_dist.train.worker import Worker

INTERVAL_S = 0.02
"""Between two looks at the memory of the workers."""
ROLLUP = ("Rss", "Pss", "Anonymous")


@dataclass(kw_only=True)
class TrainWorkersSettings:
    """What is measured."""

    num_events: int = 10_000_000
    """Events of the generated log."""
    num_users: int = 500_000
    """Its users."""
    num_items: int = 100_000
    """Its items."""
    num_workers: list[int] = field(default_factory=lambda: [1, 2, 4])
    """Numbers of processes."""
    vector_width: int = 384
    """Width of the vectors of users' profiles."""
    batch_rows: int = 256
    """Histories in a step, of all processes together."""
    num_steps: int = 20
    """Steps before memory is read."""
    validates: bool = False
    """Whether a validation follows; the largest memory is then often its own."""
    folder: str | None = None
    """Where the run is, or is made; null takes a temporary folder."""

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_events", "num_users", "num_items", "vector_width", "batch_rows", "num_steps"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        fits = bool(self.num_workers) and min(self.num_workers) >= 1
        require(fits, "num_workers", self.num_workers, "use numbers from 1 on")


def measure(settings: TrainWorkersSettings) -> dict[str, float]:
    """Gigabytes and seconds by name and number of workers."""
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as temporary:
        folder = Path(settings.folder or temporary)
        config = _config(settings, folder)
        run = RunFolder(str(folder))
        if run.stage("prepare").manifest() is None:
            log = SyntheticLogSettings(
                num_events=settings.num_events, num_users=settings.num_users, num_items=settings.num_items
            )
            write_log(str(folder / "log"), log)
            prepared_tables(config, run, settings.vector_width)
        figures: dict[str, float] = {}
        for num_workers in settings.num_workers:
            figures |= _measured(settings, folder, num_workers)
            _say(num_workers, figures)
    return figures


def _measured(settings: TrainWorkersSettings, folder: Path, num_workers: int) -> dict[str, float]:
    fresh = multiprocessing.get_context("spawn")
    told: Any = fresh.Queue()
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as meeting:
        of = (settings, str(folder), meeting, num_workers, told)
        workers = [fresh.Process(target=_work, args=(rank, *of)) for rank in range(num_workers)]
        for worker in workers:
            worker.start()
        peaks = [0] * num_workers
        while any(worker.is_alive() for worker in workers):
            peaks = [max(peak, _anonymous_bytes(worker.pid)) for peak, worker in zip(peaks, workers, strict=True)]
            time.sleep(INTERVAL_S)
    found = [told.get(timeout=10) for _ in workers]
    sums = {
        "own_gb": max(memory["Anonymous"] for _, memory in found),
        "mapped_gb": max(memory["Rss"] - memory["Anonymous"] for _, memory in found),
        "machine_gb": sum(memory["Pss"] for _, memory in found),
        # Of the first worker to come and of the others, while tables are read.
        "peak_own_gb": max(peaks),
        "least_peak_own_gb": min(peaks),
    }
    figures = {f"{name}_{num_workers}": value / BYTES_PER_GB for name, value in sums.items()}
    return {**figures, f"start_s_{num_workers}": max(start_s for start_s, _ in found)}


def _work(rank: int, settings: TrainWorkersSettings, folder: str, meeting: str, num_workers: int, told: Any) -> None:
    """What one of the processes does."""
    if num_workers > 1:
        torch.distributed.init_process_group(
            "gloo", init_method=f"file://{meeting}/meeting", rank=rank, world_size=num_workers
        )
    config = _config(settings, Path(folder))
    started = time.monotonic()
    worker = Worker(rank=rank, world_size=num_workers)
    trainer = start_trainer(config, RunFolder(folder), worker, num_workers)
    start_s = time.monotonic() - started
    trainer.parallel.train()
    for step, rows in enumerate(trainer.batches.order(0)[: settings.num_steps]):
        train_step(trainer, trainer.parts(rows), step)
    if settings.validates:
        validate(trainer.model.encoder, trainer.sequences, worker)
    worker.sum_over_workers(torch.zeros(1))  # pages are shared by all who have come so far
    told.put((start_s, _memory_of("self")))
    told.close()
    told.join_thread()
    worker.sum_over_workers(torch.zeros(1))
    if num_workers > 1:
        torch.distributed.destroy_process_group()


def _memory_of(process: str) -> dict[str, int]:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {name: values[name] for name in ROLLUP}


def _anonymous_bytes(process: int | None) -> int:
    """Memory that is no file's, 0 where the process has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def _config(settings: TrainWorkersSettings, folder: Path) -> Config:
    values = {
        "run": {"dir": str(folder)},
        "data": {"interactions": [f"{folder}/log/interactions/*.parquet"]},
        "model": {"width": 64, "max_length": 50},
        "objectives": {
            "terms": ["next_item", "cross_sequence"],
            "next_item": {"softmax": "sampled", "num_sampled": 2048, "in_batch_share": 0.5},
        },
        "train": {"batch_rows": settings.batch_rows},
    }
    return parse_config(values)


def _say(num_workers: int, figures: dict[str, float]) -> None:
    names = ("own_gb", "mapped_gb", "machine_gb", "peak_own_gb", "least_peak_own_gb", "start_s")
    own, mapped, machine, peak, least, start_s = (figures[f"{name}_{num_workers}"] for name in names)
    say(
        f"{num_workers} workers: each {own:.2f} GB of its own and {mapped:.2f} GB mapped, {machine:.2f} GB together; "
        f"own at most {peak:.2f} GB, of the least worker {least:.2f} GB; start {start_s:.1f} s"
    )
