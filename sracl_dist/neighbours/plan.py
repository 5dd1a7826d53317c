"""Which kind of search fits a table: by its size, the memory of a part, and the recall that is asked for."""

import math
from dataclasses import dataclass
from typing import Literal

from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.errors import StageError

IndexKind = Literal["exact", "ivf", "ivf_sq8", "ivf_pq"]

EXACT_OPERATIONS = 2e14
"""Multiplications and additions that an exact search may take in one part before `auto` prefers lists: about a quarter
of an hour on two cores."""
GPU_SPEED = 100
"""How much more of them a part on a GPU may take."""
LISTS_PER_ROOT = 4
"""Lists per square root of the number of vectors, as the FAISS guidelines have it."""
SAMPLED_PER_LIST = 64
"""Vectors per list that the centres are learned from."""
SMALLEST_LISTED = 1024
"""Tables with fewer vectors are always searched exactly; lists and codes need a sample to learn from."""
NUM_CODES = 256
"""Values of one byte of a compressed vector, each of which needs a vector to learn from."""
CODE_WIDTH = 4
"""Numbers of a vector that one byte of a compressed vector stands for."""
GPU_CODE_BYTES = (1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96)
"""Bytes of a compressed vector that FAISS searches on a GPU (IVFPQ::isSupportedPQCodeLength)."""
ID_BYTES = 8
BLOCK_COPIES = 4
"""A block of queries lies in memory so often: as read, as sent, as searched, and its candidates."""
LIBRARY_BYTES = 400_000_000
"""What a worker holds before it holds any vectors: Python, Ray, Arrow, FAISS."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """How every part of a table is searched."""

    kind: IndexKind
    num_lists: int = 0
    num_codes: int = 0
    """ivf_pq: bytes of a compressed vector."""
    part_bytes: int = 0
    """Memory that a part needs."""
    sampled_per_list: int = SAMPLED_PER_LIST

    @property
    def num_sampled(self) -> int:
        """Vectors that lists and codes are learned from, where there are so many."""
        return max(self.num_lists * self.sampled_per_list, NUM_CODES if self.num_codes else 0)

    @property
    def is_exact(self) -> bool:
        """Whether nothing can be missed."""
        return self.kind == "exact"

    @property
    def is_compressed(self) -> bool:
        """Whether the index knows the vectors only roughly."""
        return self.kind in ("ivf_sq8", "ivf_pq")

    @property
    def on_disk(self) -> bool:
        """Whether the whole vectors stay in a file, from which only candidates are read."""
        return self.kind == "ivf_pq"


def plan_search(settings: NeighboursConfig, num_rows: int, width: int, *, has_gpu: bool) -> SearchPlan:
    """The kind asked for, or with `auto` the most exact one that is affordable.

    Raises:
        StageError: a part would need more memory than neighbours.budget_bytes.
    """
    part_rows = math.ceil(num_rows / settings.num_index_shards)
    kinds: tuple[IndexKind, ...] = ("exact", "ivf", "ivf_sq8", "ivf_pq")
    if num_rows < SMALLEST_LISTED:
        kinds = ("exact",)
    elif settings.index == "auto":
        operations = 2 * num_rows * part_rows * width
        affordable = operations <= EXACT_OPERATIONS * (GPU_SPEED if has_gpu else 1)
        kinds = kinds if affordable else kinds[1:]
    else:
        kinds = (settings.index,)
    num_codes = code_bytes(width, has_gpu=has_gpu)
    plans = [_plan(kind, settings, num_rows, part_rows, width, num_codes) for kind in kinds]
    for plan in plans:
        if plan.part_bytes <= settings.budget_bytes:
            return plan
    least = min(plan.part_bytes for plan in plans)
    raise StageError(
        f"A part of {part_rows:,} vectors needs {least:,} bytes, more than neighbours.budget_bytes="
        f"{settings.budget_bytes:,}; raise it, or neighbours.num_index_shards={settings.num_index_shards}, or lower "
        f"neighbours.query_block_rows={settings.query_block_rows}."
    )


def _plan(
    kind: IndexKind, settings: NeighboursConfig, num_rows: int, part_rows: int, width: int, num_codes: int
) -> SearchPlan:
    num_lists = settings.num_lists or default_num_lists(num_rows)
    whole = part_rows * width * 4
    lists = {
        "exact": 0,
        "ivf": part_rows * (width * 4 + ID_BYTES),
        "ivf_sq8": part_rows * (width + ID_BYTES),
        "ivf_pq": part_rows * (num_codes + ID_BYTES),
    }[kind]
    # Lists grow by doubling while vectors are added to them.
    memory = LIBRARY_BYTES + 2 * lists + (0 if kind == "ivf_pq" else whole)
    memory += BLOCK_COPIES * settings.query_block_rows * width * 4 + num_lists * width * 4
    if kind == "exact":
        return SearchPlan(kind=kind, part_bytes=memory)
    codes = num_codes if kind == "ivf_pq" else 0
    return SearchPlan(kind=kind, num_lists=num_lists, num_codes=codes, part_bytes=memory)


def default_num_lists(num_rows: int) -> int:
    """The power of two nearest to four times the square root of the number of vectors, with some vectors in each."""
    wanted = min(LISTS_PER_ROOT * math.sqrt(num_rows), max(1, num_rows / SAMPLED_PER_LIST))
    return int(2 ** max(0, round(math.log2(wanted))))


def code_bytes(width: int, *, has_gpu: bool) -> int:
    """Bytes of a compressed vector: the largest divisor of the width that leaves CODE_WIDTH numbers a byte or more."""
    fitting = [num for num in range(1, max(1, width // CODE_WIDTH) + 1) if width % num == 0]
    return max(num for num in fitting if not has_gpu or num in GPU_CODE_BYTES)
