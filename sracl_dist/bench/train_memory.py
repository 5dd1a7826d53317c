"""How much memory training takes, measured in a process that does nothing else."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import torch

from sracl_dist.bench.machine import BYTES_PER_GB, peak_rss_gb
from sracl_dist.bench.train_variant import MakeTraining, Variant
from sracl_dist.config import Config
from sracl_dist.model.tables import SemanticTables
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import load_sequences


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The most that a process has held, the libraries themselves included."""

    rss_gb: float
    gpu_gb: float
    """0 on a processor."""


def peak_memory(make: MakeTraining, config: Config, folder: str, device: str, threads: int, num_steps: int) -> Memory:
    """Train so many steps on the tables of the run folder in a new process, and ask it for its peaks."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(_train, make, config, folder, device, threads, num_steps).result()


def _train(make: MakeTraining, config: Config, folder: str, device: str, threads: int, num_steps: int) -> Memory:
    torch.set_num_threads(threads)
    run = RunFolder(folder)
    sequences = load_sequences(run)
    where = torch.device(device)
    training = make(config, sequences, SemanticTables(run=run, sequences=sequences), where)
    Variant(training, where).run(num_steps)
    gpu_bytes = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return Memory(rss_gb=peak_rss_gb(), gpu_gb=gpu_bytes / BYTES_PER_GB)
