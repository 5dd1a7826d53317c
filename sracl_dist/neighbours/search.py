"""The only file that imports FAISS: the best candidates of a block of queries within one part of the table."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sracl_dist.errors import SetupError

faiss: Any
try:
    import faiss
except ImportError:  # reported when an index is made, so that the other modules stay importable
    faiss = None


class IndexPart:
    """A contiguous part of the vectors, searched exactly; on the GPU where the FAISS build and the machine have one."""

    def __init__(self, first_key: int, vectors: NDArray[np.float32]) -> None:
        if faiss is None:
            raise SetupError("FAISS is not installed; install the extra cpu or gpu of this package.")
        self._first_key = first_key
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._gpu = faiss.StandardGpuResources() if _has_gpu() else None
        # Ray limits the threads to the worker's cores; FAISS is told so because it looks only when it is loaded.
        faiss.omp_set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: NDArray[np.float32], num_candidates: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Inner products [n, c] and keys [n, c] of the best candidates, c = min(num_candidates, size of the part)."""
        num_candidates = min(num_candidates, len(self))
        if self._gpu is not None:
            scores, rows = faiss.knn_gpu(
                self._gpu, queries, self._vectors, num_candidates, metric=faiss.METRIC_INNER_PRODUCT
            )
        else:
            scores, rows = faiss.knn(queries, self._vectors, num_candidates, metric=faiss.METRIC_INNER_PRODUCT)
        return scores, rows + self._first_key


def _has_gpu() -> bool:
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
