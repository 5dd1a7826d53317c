"""How fast all users' targets are ranked and their best items found, against the machine's peak and the bare product.

Users are ranked shard by shard as in the stages, both protocols at once, encoding included. Between shards the matrix
peak is measured, and the product of the states with the catalogue alone, tile by tile: what is left of the time goes
into comparing. Operations are those of all inner products, 2 U V D.

The weights and the log are random; targets lie anywhere in the order, where more scores are near than at its top.

U users, V catalogue, D width.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from sracl_dist.bench.machine import BYTES_PER_GB, matrix_gflops, peak_rss_gb, seconds, waited_s
from sracl_dist.config.sections import ModelConfig, require
from sracl_dist.evaluate.best import best_items
from sracl_dist.evaluate.ranking import rank_targets
from sracl_dist.evaluate.scores import CatalogueScores, Chunk
from sracl_dist.evaluate.threads import side_by_side
from sracl_dist.histories import Histories
from sracl_dist.model.encoders import inference_encoder
from sracl_dist.observe import Progress, say

LENGTHS = (5, 51)
"""Range of the histories' lengths, the end excluded."""
TOLERABLE_WAITING = 0.02


@dataclass(kw_only=True)
class EvaluateSettings:
    """How many users and items there are, and on what it runs."""

    num_users: int = 100_000
    """Users whose targets are ranked."""
    num_served: int = 10_000
    """Of these the users whose best items are found."""
    num_items: int = 1_000_000
    """Catalogue size."""
    width: int = 64
    """Width of states and representations."""
    num_best: int = 20
    """Length of a list of best items."""
    shard_users: int = 8192
    """Users done at a time, as evaluate.shard_users."""
    device: str = "cpu"
    """cpu or cuda."""
    threads: int = 2
    """Threads of the processor, as evaluate.cpus_per_worker."""
    matrix_width: int = 2048
    """Rows and columns of the square matrices whose product is the machine's peak."""
    quick: bool = False
    """Few users and items: shows that it runs, and measures nothing."""

    def __post_init__(self) -> None:
        if self.quick:
            self.num_users, self.num_served, self.num_items, self.matrix_width = 600, 300, 5000, 256

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_users", "num_served", "num_items", "width", "num_best", "shard_users", "threads"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        fits = self.num_served <= self.num_users
        require(fits, "num_served", self.num_served, f"use num_users={self.num_users} or less")
        require(self.width % 2 == 0, "width", self.width, "use an even number")
        require(self.device in ("cpu", "cuda"), "device", self.device, "use cpu or cuda")
        there = self.device == "cpu" or torch.cuda.is_available()
        require(there, "device", self.device, "use cpu where PyTorch finds no GPU")


@dataclass(kw_only=True)
class _Timing:
    """Seconds of the work on some users, and rates measured in between, in operations per second."""

    num_users: int
    work_s: float
    peak: float
    bare: float


def measure(settings: EvaluateSettings) -> dict[str, float]:
    """Figures by name; see the comments within for what they mean."""
    torch.set_num_threads(settings.threads)
    device = torch.device(settings.device)
    torch.manual_seed(0)
    encoder = inference_encoder(ModelConfig(width=settings.width, num_heads=2), settings.num_items).to(device)
    encoder.catalogue.get_buffer("table_VD")[1:].normal_()
    random = np.random.default_rng(0)
    histories, targets = _log(settings, random)
    started, waited_before_s = time.perf_counter(), waited_s()
    scores = CatalogueScores(encoder, device)

    def rank(users: slice) -> None:
        rank_targets(scores, histories[users], targets[users])

    def recommend(users: slice) -> None:
        best_items(scores, histories[users], settings.num_best, remove_seen=True)

    ranked = _measure(rank, settings, scores, histories)
    served = _measure(recommend, settings, scores, histories[: settings.num_served])
    share = (waited_s() - waited_before_s) / (time.perf_counter() - started)
    if share > TOLERABLE_WAITING:
        say(f"warning: other work had the processor for {share:.0%} of the time; measure again on an idle machine")
    per_user = 2 * settings.num_items * settings.width
    figures = {
        # Operations of all inner products over what the machine's products reach in the time of the ranking.
        "peak_share": per_user * ranked.num_users / ranked.work_s / ranked.peak,
        # The same over what the bare product of the states with the catalogue reaches.
        "bare_product_share": per_user * ranked.num_users / ranked.work_s / ranked.bare,
        "users_per_second": ranked.num_users / ranked.work_s,
        "rank_s": ranked.work_s,
        "recommend_peak_share": per_user * served.num_users / served.work_s / served.peak,
        "recommend_bare_product_share": per_user * served.num_users / served.work_s / served.bare,
        "recommend_users_per_second": served.num_users / served.work_s,
        "matrix_peak_gflops": ranked.peak / 1e9,
        "bare_product_gflops": ranked.bare / 1e9,
        "peak_rss_gb": peak_rss_gb(),
        # What the scores of all users would take.
        "score_matrix_gb": settings.num_users * settings.num_items * 4 / BYTES_PER_GB,
    }
    for prefix, name in (("", "ranking"), ("recommend_", f"best {settings.num_best}")):
        say(
            f"{name}: {figures[prefix + 'users_per_second']:,.0f} users/s, {figures[prefix + 'peak_share']:.2f} of the "
            f"matrix peak, {figures[prefix + 'bare_product_share']:.2f} of the bare product"
        )
    return figures


def _log(settings: EvaluateSettings, random: np.random.Generator) -> tuple[Histories, NDArray[np.int32]]:
    """Histories, and a target for each."""
    lengths = random.integers(*LENGTHS, settings.num_users)
    items = random.integers(1, settings.num_items + 1, lengths.sum(), dtype=np.int32)
    targets = random.integers(1, settings.num_items + 1, settings.num_users, dtype=np.int32)
    return Histories(items, np.concatenate([[0], np.cumsum(lengths)])), targets


def _measure(
    work: Callable[[slice], None], settings: EvaluateSettings, scores: CatalogueScores, histories: Histories
) -> _Timing:
    """Do the work shard by shard, and measure the machine in between."""
    num_users = len(histories)
    work_s, peaks, bare = 0.0, [matrix_gflops(settings.matrix_width, scores.device)], []
    progress = Progress(work.__name__, num_users, "users")
    for start in range(0, num_users, settings.shard_users):
        users = slice(start, min(start + settings.shard_users, num_users))
        work_s += seconds(lambda users=users: work(users), scores.device)  # type: ignore[misc]
        peaks.append(matrix_gflops(settings.matrix_width, scores.device))
        chunks = scores.for_chunks(histories[users], lambda chunk: chunk)[: settings.threads]
        bare_s = seconds(lambda chunks=chunks: _multiply(scores, chunks), scores.device)  # type: ignore[misc]
        bare.append(2 * sum(map(len, chunks)) * scores.num_items * settings.width / bare_s)
        progress.update(users.stop - users.start)
    progress.close()
    return _Timing(num_users=num_users, work_s=work_s, peak=median(peaks) * 1e9, bare=median(bare))


def _multiply(scores: CatalogueScores, chunks: list[Chunk]) -> None:
    def multiply(chunk: Chunk) -> None:
        for _ in scores.tiles(chunk):
            pass

    side_by_side(multiply, chunks, scores.device)
