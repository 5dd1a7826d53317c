"""The only file that imports FAISS: candidates of a block of queries within one part of the table, by inner product.

n queries, c candidates, M vectors of the part, d width.
"""

import os
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.errors import SetupError, StageError, last_line
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.observe import say

faiss: Any
try:
    import faiss
except ImportError:  # reported when an index is made, so that the other modules stay importable
    faiss = None

KMEANS_SEED = 1234
KMEANS_ROUNDS = 10
ADD_ROWS = 65_536
"""Vectors added to inverted lists at a time."""

Found = tuple[NDArray[np.float32], NDArray[np.int64]]


class Index(ABC):
    """Some vectors that can be searched; results are rows of theirs."""

    @abstractmethod
    def search(self, queries: NDArray[np.float32], num_candidates: int) -> Found:
        """Scores [n, c] and rows [n, c] of the best candidates, best first; row -1 where there are fewer."""


class ExactIndex(Index):
    """Every query against every vector; on the GPU where the FAISS build and the machine have one."""

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        _prepare_faiss()
        self._vectors = vectors
        self._gpu = faiss.StandardGpuResources() if _has_gpu() else None

    def search(self, queries: NDArray[np.float32], num_candidates: int) -> Found:
        """See `Index.search`; there are min(num_candidates, M) columns."""
        num_candidates = min(num_candidates, len(self._vectors))
        metric = faiss.METRIC_INNER_PRODUCT
        if self._gpu is not None:
            found: Found = faiss.knn_gpu(self._gpu, queries, self._vectors, num_candidates, metric=metric)
        else:
            found = faiss.knn(queries, self._vectors, num_candidates, metric=metric)
        return found


class InvertedIndex(Index):
    """Lists of near vectors, of which a query visits the nearest few; all parts share what `train_lists` learned."""

    def __init__(self, trained: NDArray[np.uint8], num_probes: int) -> None:
        _prepare_faiss()
        self._index = faiss.deserialize_index(trained)
        self._searched = self._index
        self.num_probes = num_probes

    @property
    def num_probes(self) -> int:
        """Lists that a query visits."""
        return int(self._index.nprobe)

    @num_probes.setter
    def num_probes(self, num_probes: int) -> None:
        self._index.nprobe = num_probes
        if self._searched is not self._index:
            faiss.GpuParameterSpace().set_index_parameter(self._searched, "nprobe", num_probes)

    def add(self, vectors: NDArray[np.float32]) -> None:
        """Append vectors; their rows go on where the last ones ended."""
        for start in range(0, len(vectors), ADD_ROWS):
            self._index.add(np.ascontiguousarray(vectors[start : start + ADD_ROWS]))

    def finish(self) -> None:
        """Called when all vectors are there: move to the GPU if there is one and FAISS can search them there."""
        if not _has_gpu():
            return
        options = faiss.GpuClonerOptions()
        # With tables of two bytes codes of more than 48 bytes fit a GPU; scores are made anew from whole vectors.
        options.useFloat16 = isinstance(self._index, faiss.IndexIVFPQ)
        try:
            self._searched = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index, options)
        except RuntimeError as error:
            reason = last_line(error)
            say(f"neighbours: the lists stay off the GPU, because FAISS refuses them ({reason})")  # in a worker's log
            return
        self.num_probes = int(self._index.nprobe)

    def search(self, queries: NDArray[np.float32], num_candidates: int) -> Found:
        """See `Index.search`.

        Queries are taken list by list: those of one list visit much the same lists, which then are in the cache.
        """
        _, nearest = self._index.quantizer.search(queries, 1)
        order = np.argsort(nearest[:, 0], kind="stable")
        scores, rows = self._searched.search(np.ascontiguousarray(queries[order]), num_candidates)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return scores[back], rows[back]


def train_lists(sample: NDArray[np.float32], plan: SearchPlan) -> NDArray[np.uint8]:
    """Learn the lists' centres, and the codes of compressed vectors, from a sample; an empty index as bytes.

    Raises:
        StageError: the sample is smaller than the number of lists.
    """
    if len(sample) < plan.num_lists:
        raise StageError(
            f"{len(sample):,} vectors cannot fill {plan.num_lists:,} lists; lower neighbours.num_lists, or use "
            f"neighbours.index=exact."
        )
    _prepare_faiss()
    width = sample.shape[1]
    storage = {"ivf": "Flat", "ivf_sq8": "SQ8", "ivf_pq": f"PQ{plan.num_codes}x8"}[plan.kind]
    index = faiss.index_factory(width, f"IVF{plan.num_lists},{storage}", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.niter, index.cp.spherical = KMEANS_SEED, KMEANS_ROUNDS, True
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, plan.sampled_per_list
    if plan.kind == "ivf_pq":
        index.pq.cp.min_points_per_centroid = 1
    index.train(sample)
    trained: NDArray[np.uint8] = faiss.serialize_index(index)
    return trained


def _prepare_faiss() -> None:
    if faiss is None:
        raise SetupError("FAISS is not installed; install the extra cpu or gpu of this package.")
    # Ray limits the threads to the worker's cores; FAISS is told so because it looks only when it is loaded.
    faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))


def _has_gpu() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
