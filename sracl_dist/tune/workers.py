"""The processes of one trial: its own and, where train.num_workers asks for more, others in the same placement group.

Everything that a trial uses lies in the placement group that Ray Tune made for it and removes with it. A TorchTrainer
within a trial would make a group of its own, which stays when the trial is stopped early.
"""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import ray
import ray.util
import torch
import torch.distributed
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sracl_dist.artifacts import RunFolder
from sracl_dist.config import Config
from sracl_dist.train.worker import Worker, prepare_process
from sracl_dist.tune.trial import Report, train_trial


def train_with_peers(
    config: Config, run: RunFolder, number: int, num_told: int, report: Report, *, use_gpu: bool
) -> None:
    """Train a trial as the first of its workers; arguments and errors are those of `train_trial`."""
    address = _free_address()
    with _peers(config, use_gpu) as peers:
        for rank, peer in enumerate(peers, start=1):
            peer.work.remote(config, run, number, rank, address, use_gpu)
        _work(config, run, number, 0, address, use_gpu, num_told, report)


class _Peer:
    """Another worker of the trial."""

    def work(self, config: Config, run: RunFolder, number: int, rank: int, address: str, use_gpu: bool) -> None:
        _work(config, run, number, rank, address, use_gpu, 0, lambda _progress, _is_last: None)


@contextlib.contextmanager
def _peers(config: Config, use_gpu: bool) -> Iterator[list[Any]]:
    """One actor for each bundle of the trial's placement group behind the first."""
    group: Any = ray.util.get_current_placement_group()
    peers: list[Any] = [
        ray.remote(_Peer)
        .options(
            num_cpus=config.train.cpus_per_worker,
            num_gpus=int(use_gpu),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        )
        .remote()
        for rank in range(1, config.train.num_workers)
    ]
    try:
        yield peers
    finally:
        for peer in peers:
            ray.kill(peer)


def _work(
    config: Config,
    run: RunFolder,
    number: int,
    rank: int,
    address: str,
    use_gpu: bool,
    num_told: int,
    report: Report,
) -> None:
    world_size = config.train.num_workers
    worker = Worker(rank=rank, world_size=world_size, device=torch.device("cuda" if use_gpu else "cpu"))
    prepare_process(worker.device, config.train.cpus_per_worker)
    if world_size > 1:
        backend = "nccl" if use_gpu else "gloo"
        torch.distributed.init_process_group(backend, init_method=address, rank=rank, world_size=world_size)
    try:
        train_trial(config, run, number, worker, num_told, report)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _free_address() -> str:
    """Where the workers of this trial meet: a port of this node that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
