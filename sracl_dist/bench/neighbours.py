"""How fast neighbours are found: against plain FAISS, against the machine's peak, and lists against exact search.

Two tables are searched by the stage as it is, on a private Ray cluster: one exactly, beside one call of `faiss.knn` on
the same vectors in this process; and a larger one by lists that reach a recall, beside an exact search of some of its
queries, from which the time of all is extrapolated. Operations are those of all inner products, 2 N^2 d.

The vectors lie near a surface of few dimensions in groups of different sizes, as those of texts do.

N vectors, d width.
"""

import tempfile
import time
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from sracl_dist.bench.machine import BYTES_PER_GB, matrix_gflops, peak_rss_gb, waited_s
from sracl_dist.columns import KEY, VECTOR
from sracl_dist.config import parse_config
from sracl_dist.config.sections import require
from sracl_dist.embed.vectors import load_vectors
from sracl_dist.neighbours.job import build_neighbours
from sracl_dist.observe import say
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import plan_shards

SURFACE_WIDTH = 24
"""Dimensions in which the vectors mostly differ."""
NUM_GROUPS = 500
GROUP_SPREAD, NOISE = 0.7, 0.05
SHARD_ROWS = 16_384
FEW_USERS = 64
"""The stage always makes two tables; the other one is as small as this."""


@dataclass(kw_only=True)
class NeighboursSettings:
    """What is searched."""

    num_exact: int = 200_000
    """Vectors of the table that is searched exactly."""
    exact_width: int = 384
    """Their width."""
    num_listed: int = 1_000_000
    """Vectors of the table that is searched by lists."""
    listed_width: int = 128
    """Their width."""
    num_exact_queries: int = 20_000
    """Queries of that table that are also searched exactly, to tell how long all would take."""
    num_neighbours: int = 10
    """Neighbours of each (k)."""
    min_recall: float = 0.95
    """Recall that the lists must reach."""
    budget_bytes: int = 3_000_000_000
    """Memory that a worker may use."""
    threads: int = 2
    """Threads of the processor, of plain FAISS and of the stage's worker alike."""
    matrix_width: int = 4096
    """Rows and columns of the square matrices whose product is the machine's peak."""
    quick: bool = False
    """Small tables: shows that it runs, and measures nothing."""

    def __post_init__(self) -> None:
        if self.quick:
            self.num_exact, self.num_listed, self.num_exact_queries, self.matrix_width = 2000, 5000, 500, 256

    def check(self) -> None:
        """Raise ValueError for an impossible value."""
        for name in ("num_exact", "exact_width", "num_listed", "listed_width", "num_exact_queries", "threads"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "use 1 or more")
        require(0 < self.min_recall <= 1, "min_recall", self.min_recall, "use above 0 and at most 1")


def measure(settings: NeighboursSettings) -> dict[str, float]:
    """Figures by name; see the comments in `_exact` and `_listed` for what they mean."""
    torch.set_num_threads(settings.threads)
    faiss.omp_set_num_threads(settings.threads)
    waited_before_s, started = waited_s(), time.perf_counter()
    figures = _exact(settings) | _listed(settings)
    share = (waited_s() - waited_before_s) / (time.perf_counter() - started)
    if share > 0.02:
        say(f"warning: other work had the processor for {share:.0%} of the time; measure again on an idle machine")
    return figures


def _exact(settings: NeighboursSettings) -> dict[str, float]:
    device = torch.device("cpu")
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as folder:
        run = _make_run(folder, settings.num_exact, settings.exact_width)
        peaks = [matrix_gflops(settings.matrix_width, device)]
        vectors = load_vectors(run, "items")
        half = len(vectors) // 2
        # Half of it before the stage and half after, because processors change their speed within minutes.
        plain_s = _plain_s(vectors[:half], vectors, settings.num_neighbours)
        peaks.append(matrix_gflops(settings.matrix_width, device))
        facts, stage_s = _run_stage(run, settings, "exact", min_recall=1.0)
        peaks.append(matrix_gflops(settings.matrix_width, device))
        plain_s += _plain_s(vectors[half:], vectors, settings.num_neighbours)
        peaks.append(matrix_gflops(settings.matrix_width, device))
    operations = 2 * settings.num_exact**2 * settings.exact_width
    peak = float(np.median(peaks)) * 1e9
    figures = {
        # Operations of the search over what the machine's products reach in its time.
        "exact_peak_share": operations / facts["search_s"] / peak,
        # Time of plain FAISS over that of the stage's search: blocks, exact scores, order of ties and commits included.
        "exact_against_plain": plain_s / facts["search_s"],
        "plain_peak_share": operations / plain_s / peak,
        "exact_search_s": facts["search_s"],
        # Ray's start, reading, and the measured recall included.
        "exact_stage_s": stage_s,
        "plain_s": plain_s,
        "matrix_peak_gflops": peak / 1e9,
        "exact_worker_gb": facts["peak_bytes"] / BYTES_PER_GB,
    }
    say(
        f"exact, {settings.num_exact:,} x {settings.exact_width}: {facts['search_s']:.1f} s, plain {plain_s:.1f} s "
        f"({figures['exact_against_plain']:.3f}); {figures['exact_peak_share']:.2f} of {peak / 1e9:.0f} GFLOP/s"
    )
    return figures


def _listed(settings: NeighboursSettings) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="sracl-bench-") as folder:
        run = _make_run(folder, settings.num_listed, settings.listed_width)
        vectors = load_vectors(run, "items")
        queries = vectors[: settings.num_exact_queries]
        exact_s = _plain_s(queries, vectors, settings.num_neighbours) * len(vectors) / len(queries)
        del vectors, queries
        facts, stage_s = _run_stage(run, settings, "ivf", min_recall=settings.min_recall)
    figures = {
        # Extrapolated exact time over the whole stage's: learning lists, tuning, search, measured recall.
        "lists_speedup": exact_s / stage_s,
        "lists_recall": facts["recall"],
        "lists_stage_s": stage_s,
        "lists_search_s": facts["search_s"],
        "lists_exact_s": exact_s,
        "lists_num_probes": facts["num_probes"],
        "lists_num_lists": facts["num_lists"],
        # Largest resident memory of the worker and of this process, which made the vectors.
        "lists_worker_gb": facts["peak_bytes"] / BYTES_PER_GB,
        "driver_gb": peak_rss_gb(),
        "distance_matrix_gb": settings.num_listed**2 * 4 / BYTES_PER_GB,
    }
    say(
        f"lists, {settings.num_listed:,} x {settings.listed_width}: {stage_s:.1f} s with recall {facts['recall']:.4f}, "
        f"exact {exact_s:.0f} s ({figures['lists_speedup']:.1f} times); {figures['lists_worker_gb']:.2f} GB in the "
        f"worker of a budget of {settings.budget_bytes / BYTES_PER_GB:.2f} GB"
    )
    return figures


def _plain_s(queries: NDArray[np.float32], vectors: NDArray[np.float32], num_neighbours: int) -> float:
    """Time of one call of FAISS, which finds the query itself as well."""
    started = time.perf_counter()
    faiss.knn(queries, vectors, num_neighbours + 1, metric=faiss.METRIC_INNER_PRODUCT)
    return time.perf_counter() - started


def _run_stage(
    run: RunFolder, settings: NeighboursSettings, index: str, min_recall: float
) -> tuple[dict[str, Any], float]:
    """What the stage measured of the items' table, and its time."""
    values = {
        "run": {"dir": run.location},
        "cluster": {"address": "local", "num_cpus": settings.threads},
        "data": {"source": "movielens-100k"},
        "neighbours": {
            "index": index,
            "num_neighbours": settings.num_neighbours,
            "min_recall": min_recall,
            "budget_bytes": settings.budget_bytes,
        },
    }
    started = time.perf_counter()
    result = build_neighbours(parse_config(values, []), run)
    return result.details["quality"]["items"], time.perf_counter() - started


def _make_run(folder: str, num_items: int, width: int) -> RunFolder:
    """Vectors as the stage embed writes them."""
    run = RunFolder(folder)
    random = np.random.default_rng(0)
    surface = random.standard_normal((SURFACE_WIDTH, width)).astype(np.float32) / SURFACE_WIDTH**0.5
    centres = random.standard_normal((NUM_GROUPS, SURFACE_WIDTH)).astype(np.float32)
    # Groups of very different sizes: the r-th largest has a share in proportion to 1/r.
    shares = 1 / np.arange(1, NUM_GROUPS + 1)
    for kind, first, num in (("items", 1, num_items), ("users", 0, FEW_USERS)):
        for shard in plan_shards(kind, first, num, SHARD_ROWS):
            own = np.random.default_rng([1, shard.start])
            groups = own.choice(NUM_GROUPS, size=shard.num_rows, p=shares / shares.sum())
            vectors = _near_surface(centres[groups], surface, own)
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
            keys = pa.array(np.arange(shard.start, shard.stop), pa.int64())
            run.stage("embed").write_table(shard.name, pa.table({KEY: keys, VECTOR: column}))
    return run


def _near_surface(
    centres: NDArray[np.float32], surface: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.float32]:
    inner = centres + GROUP_SPREAD * random.standard_normal(centres.shape, dtype=np.float32)
    vectors = inner @ surface
    vectors += NOISE * random.standard_normal(vectors.shape, dtype=np.float32)
    unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit
