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
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from sracl_dist.config import Config
from sracl_dist.errors import SraclError
from sracl_dist.meeting import keep_store_on_loopback
from sracl_dist.run_folder import RunFolder
from sracl_dist.train.worker import Worker
from sracl_dist.tune.trial import Report, train_trial

PEER_ENDS_S = 5.0
"""How long the first worker waits, once a peer is gone, to hear why."""


def train_with_peers(
    config: Config, run: RunFolder, number: int, num_told: int, report: Report, *, use_gpu: bool
) -> None:
    """Train a trial as the first of its workers; arguments and errors are those of `train_trial`."""
    address = _free_address()
    with _peers(config, use_gpu) as peers:
        works = [
            peer.work.remote(config, run, number, rank, address, use_gpu) for rank, peer in enumerate(peers, start=1)
        ]
        try:
            _work(config, run, number, 0, address, use_gpu, num_told, report)
        except RuntimeError as error:
            # What torch.distributed says when a peer is gone hides why it went.
            raise _sentence_of(works) or error from None


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
    if world_size > 1:
        backend = "nccl" if use_gpu else "gloo"
        keep_store_on_loopback()
        torch.distributed.init_process_group(backend, init_method=address, rank=rank, world_size=world_size)
    try:
        train_trial(config, run, number, worker, num_told, report, workers_here=_workers_here())
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _sentence_of(works: list[Any]) -> SraclError | None:
    """The sentence for the user with which a peer has ended, if one has."""
    ended, _ = ray.wait(works, num_returns=len(works), timeout=PEER_ENDS_S) if works else ([], [])
    for work in ended:
        try:
            ray.get(work)
        except RayTaskError as error:
            if isinstance(error.cause, SraclError):
                return error.cause
        except RayError:
            continue  # its process died, which may go better in another attempt
    return None


def _workers_here() -> int:
    """Workers of this trial on this machine."""
    table = ray.util.placement_group_table(ray.util.get_current_placement_group())
    return list(table["bundles_to_node_id"].values()).count(ray.get_runtime_context().get_node_id())


def _free_address() -> str:
    """Where the workers of this trial meet: a port of this node that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return f"tcp://{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"
