"""What training needs in memory, before it begins, and whether the machine has it.

The estimate is of one worker, part by part, from the sizes of the data and the configuration; what grows with the
catalogue, the users or the log is counted, the rest is allowed for. Tables that the workers of a machine share in
mapped files are told beside it: their pages are there once, and the system's to drop and read again.

V catalogue, U users, N items of all users, T items of a step, D width, P width of the vectors, K neighbours.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pyarrow.parquet as pq

from sracl_dist.columns import VECTOR
from sracl_dist.config import Config
from sracl_dist.errors import StageError
from sracl_dist.evaluate.blocks import BLOCK_ITEMS, WAITING_BLOCKS
from sracl_dist.evaluate.scores import (
    CHUNK_USERS,
    GPU_CHUNK_USERS,
    GPU_TILE_ITEMS,
    PAIRS_AT_A_TIME,
    TILE_ITEMS,
)
from sracl_dist.model.item_text import ITEMS_PER_PIECE
from sracl_dist.model.softmax import GPU_SCORES_PER_CHUNK, SCORES_PER_CHUNK
from sracl_dist.run_folder import RunFolder
from sracl_dist.sequences import Sequences

BYTES_PER_GB = 1e9
FLOAT, INT, LONG = 4, 4, 8
"""Bytes of a number."""
PROCESS_BYTES = 450_000_000
"""A worker of Ray Train with PyTorch before it has read anything, and what allocators keep."""
GPU_PROCESS_BYTES = 600_000_000
"""The same on a GPU: CUDA's context and the libraries' kernels."""
VALIDATION_BYTES_PER_USER = 70
"""Of all users while a validation is summed up."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much there is of everything."""

    num_items: int
    num_users: int
    num_places: int
    """Items of all users together."""
    item_vector_width: int = 0
    """Width P of the vectors of items; 0 where none is read."""
    user_vector_width: int = 0
    """That of the vectors of users."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Something that takes memory."""

    name: str
    num_bytes: int
    mend: str
    """What makes it smaller."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What one worker needs; on a GPU in both memories."""

    host: tuple[Part, ...]
    device: tuple[Part, ...]
    """Empty without a GPU, when everything is in the host's memory."""
    machine: tuple[Part, ...] = ()
    """In the host's memory once for all workers of a machine."""
    file_bytes: int = 0
    """Of tables in files that the workers of a machine share."""

    @property
    def host_bytes(self) -> int:
        """Needed in the host's memory by each worker."""
        return _sum(self.host)

    @property
    def device_bytes(self) -> int:
        """Needed in the GPU's memory."""
        return _sum(self.device)

    def line(self, num_workers: int) -> str:
        """One line for the person who starts the training."""
        largest = _largest(self.device or self.host)
        where = f"{_gb(self.host_bytes)} of memory"
        if self.device:
            where += f" and {_gb(self.device_bytes)} of GPU memory"
        each = f" for each of {num_workers} workers" if num_workers > 1 else ""
        shared = "".join(f"{_gb(part.num_bytes)} for {part.name} and " for part in self.machine)
        return (
            f"needs about {where}{each}, most of it ({_gb(largest.num_bytes)}) for {largest.name}; on each machine "
            f"once {shared}{_gb(self.file_bytes)} of tables in files"
        )


def sizes_of(config: Config, run: RunFolder, sequences: Sequences) -> Sizes:
    """Sizes of a run whose tables are there."""
    return Sizes(
        num_items=sequences.num_items,
        num_users=sequences.num_users,
        num_places=len(sequences.items),
        item_vector_width=_vector_width(run, "items/") if config.model.item_text else 0,
        user_vector_width=_vector_width(run, "users/") if "cross_sequence" in config.objectives.terms else 0,
    )


def _vector_width(run: RunFolder, kind: str) -> int:
    folder = run.stage("embed")
    names = [name for name in folder.files(kind) if name.endswith(".parquet")]
    if not names:
        return 0
    schema = pq.read_schema(folder.path(names[0]), filesystem=folder.filesystem)
    width: int = schema.field(VECTOR).type.list_size
    return width


def estimate(config: Config, sizes: Sizes, *, on_gpu: bool) -> Estimate:
    """What one of the configured workers needs."""
    lasting = [*_table(config, sizes), *_users(config, sizes, on_gpu=on_gpu)]
    passing = max(_step(config, sizes, on_gpu=on_gpu), _validation(config, sizes, on_gpu=on_gpu), key=_sum)
    log, bank, file_bytes = _log(config, sizes), _bank(config, sizes), _file_bytes(config, sizes)
    process = Part(name="the process itself", num_bytes=PROCESS_BYTES, mend="use a larger machine")
    if not on_gpu:
        return Estimate(host=(*lasting, *passing, log, process), device=(), machine=bank, file_bytes=file_bytes)
    # Tables are made in the host's memory, and come back for a checkpoint.
    copies = Part(
        name="copies of item embeddings and their moments",
        num_bytes=2 * FLOAT * (sizes.num_items + 1) * config.model.width,
        mend=_table_mend(config),
    )
    gpu_process = Part(name="the process itself", num_bytes=GPU_PROCESS_BYTES, mend="use a larger GPU")
    device = (*lasting, *bank, *passing, gpu_process)
    return Estimate(host=(copies, log, process), device=device, file_bytes=file_bytes)


def require_memory(need: Estimate, *, workers_here: int, host_bytes: int, device_bytes: int | None) -> None:
    """Refuse a training that cannot fit.

    Args:
        need: of one worker.
        workers_here: how many share this machine's memory; each has a GPU of its own.
        host_bytes: what is there for all of them.
        device_bytes: what is there on the GPU.

    Raises:
        StageError: names the largest part and what makes it smaller.
    """
    host = [*(_times(part, workers_here) for part in need.host), *need.machine]
    checks = [("memory", host, workers_here, host_bytes)]
    if device_bytes is not None:
        checks.append(("GPU memory", list(need.device), 1, device_bytes))
    for kind, parts, times, there in checks:
        needed = _sum(parts)
        if needed > there:
            largest = _largest(parts)
            workers = f" for {times} workers" if times > 1 else ""
            raise StageError(
                f"Training needs about {_gb(needed)} of {kind}{workers} and {_gb(there)} are there; the largest part "
                f"is {_gb(largest.num_bytes)} for {largest.name}: {largest.mend}."
            )


def _times(part: Part, times: int) -> Part:
    return replace(part, num_bytes=times * part.num_bytes)


def _table(config: Config, sizes: Sizes) -> list[Part]:
    """What there is for every item."""
    num, width, terms = sizes.num_items + 1, config.model.width, config.objectives.terms
    sampled = config.objectives.next_item.softmax == "sampled"
    table_bytes, mend = FLOAT * num * width, _table_mend(config)
    # Counts; which items are candidates, and their places; where text is used, whose embedding each one has.
    lookups = 4 * LONG * num + 3 * LONG * num * sampled + LONG * num * config.model.item_text
    if "intra_sequence" in terms or config.model.item_text:
        lookups += INT * num * config.neighbours.num_neighbours
    if "intra_sequence" in terms:
        lookups += num * (INT * config.objectives.intra_sequence.num_neighbours + LONG)
    parts = [
        Part(name="item embeddings and their moments", num_bytes=3 * table_bytes, mend=mend),
        Part(name="item lookups", num_bytes=lookups, mend="train with fewer items"),
    ]
    if sampled:
        parts.append(Part(name="ages of the embeddings", num_bytes=INT * num, mend=mend))
        return parts  # and text vectors stay in their file
    if config.model.item_text:
        text_bytes = FLOAT * num * sizes.item_vector_width
        parts.append(Part(name="text vectors of items", num_bytes=text_bytes, mend=mend))
    return parts


def _table_mend(config: Config) -> str:
    if config.objectives.next_item.softmax == "full":
        return "set objectives.next_item.softmax=sampled, or a smaller model.width"
    return "set a smaller model.width, or train with fewer items"


def _log(config: Config, sizes: Sizes) -> Part:
    """What a worker has of the log beside the table that it shares."""
    # Where every user's windows begin, and their order in the epoch.
    num_bytes = INT * sizes.num_users + INT * _num_windows(config, sizes)
    if "same_target" in config.objectives.terms:
        # Places of all targets by item; several copies of them while they are sorted.
        num_bytes += 7 * LONG * sizes.num_places
    # Ranks of all workers' users under both protocols, and metrics by user made of them.
    num_bytes += VALIDATION_BYTES_PER_USER * sizes.num_users
    return Part(name="the log", num_bytes=num_bytes, mend="train on a shorter log")


def _file_bytes(config: Config, sizes: Sizes) -> int:
    """Size of the mapped files."""
    user_bytes = LONG + 2 * INT
    if "cross_sequence" in config.objectives.terms:
        user_bytes += INT * config.neighbours.num_neighbours + FLOAT * sizes.user_vector_width
    item_bytes = FLOAT * sizes.item_vector_width * config.model.item_text
    return INT * sizes.num_places + user_bytes * sizes.num_users + item_bytes * (sizes.num_items + 1)


def _users(config: Config, sizes: Sizes, *, on_gpu: bool) -> list[Part]:
    """What there is for every user, apart from what is shared."""
    if "cross_sequence" not in config.objectives.terms:
        return []
    settings, num = config.objectives.cross_sequence, sizes.num_users
    parts = []
    if on_gpu or settings.neighbours == "random":
        tables, mend = INT * num * settings.num_neighbours, "set a smaller objectives.cross_sequence.num_neighbours"
        parts.append(Part(name="neighbours of users", num_bytes=tables, mend=mend))
    if on_gpu:
        vectors, mend = FLOAT * num * sizes.user_vector_width, "use a text encoder with shorter vectors"
        parts.append(Part(name="vectors of users", num_bytes=vectors, mend=mend))
    return parts


def _bank(config: Config, sizes: Sizes) -> tuple[Part, ...]:
    """The states of all users, where there is a bank of them."""
    has_bank = config.objectives.cross_sequence.neighbour_states == "bank"
    if not has_bank or "cross_sequence" not in config.objectives.terms:
        return ()
    num_bytes = sizes.num_users * (FLOAT * config.model.width + 1)
    mend = "set objectives.cross_sequence.neighbour_states=encoded"
    return (Part(name="the bank of users' states", num_bytes=num_bytes, mend=mend),)


def _step(config: Config, sizes: Sizes, *, on_gpu: bool) -> list[Part]:
    """What a step of training has at a time."""
    model, terms = config.model, config.objectives.terms
    passes = 1 + 2 * ("intra_sequence" in terms) + 2 * ("random_views" in terms) + ("same_target" in terms)
    if "cross_sequence" in terms and config.objectives.cross_sequence.neighbour_states == "encoded":
        passes += config.objectives.cross_sequence.num_neighbours
    rows = -(-config.train.batch_rows // config.train.num_workers)
    num_places = passes * rows * _row_length(config, sizes)
    per_layer = 16 * model.width + 4 * model.feedforward_width + 3 * model.num_heads * model.max_length
    parts = [
        Part(
            name="the activations of a step",
            num_bytes=FLOAT * num_places * (8 * model.width + model.num_layers * per_layer),
            mend="set a smaller train.batch_rows, or more train.num_workers",
        ),
        Part(
            name="scores in training",
            num_bytes=3 * FLOAT * (GPU_SCORES_PER_CHUNK if on_gpu else SCORES_PER_CHUNK),
            mend="use a larger machine",
        ),
    ]
    if config.objectives.next_item.softmax == "full":
        # It is there twice on its way from the softmax to the weights, and once more for other workers; with texts,
        # so are the representations and what they are the sum of.
        copies = 2 + (config.train.num_workers > 1) + 4 * model.item_text
        table_bytes = FLOAT * (sizes.num_items + 1) * model.width
        mend = _table_mend(config)
        parts.append(Part(name="the gradient of all items", num_bytes=copies * table_bytes, mend=mend))
    return parts


def _validation(config: Config, sizes: Sizes, *, on_gpu: bool) -> list[Part]:
    """What a validation has at a time; at a checkpoint the finished table is there again, by itself."""
    model, num_rows = config.model, sizes.num_items + 1
    tile_items, users = (GPU_TILE_ITEMS, GPU_CHUNK_USERS) if on_gpu else (TILE_ITEMS, CHUNK_USERS)
    tile = users * min(tile_items, sizes.num_items)
    # A tile and what is compared with it; blocks that wait, those of one more tile, and a copy when they are taken.
    num_scores = 2 * tile + 2 * (WAITING_BLOCKS * BLOCK_ITEMS + tile)
    # Products of pairs in float64, and the rows that they are made of.
    num_scores += PAIRS_AT_A_TIME * model.width * (2 * LONG // FLOAT + 1)
    per_place = 8 * model.width + 2 * model.feedforward_width + 2 * model.num_heads * model.max_length
    chunk_bytes = FLOAT * (num_scores + users * _row_length(config, sizes) * per_place)
    num_threads = 1 if on_gpu else config.train.cpus_per_worker
    mend = "use a larger GPU" if on_gpu else "set a smaller train.cpus_per_worker"
    parts = [Part(name="scores in validation", num_bytes=num_threads * chunk_bytes, mend=mend)]
    if model.item_text:
        # Vectors that lie in a file are added piece by piece; others at once, to a sum that is a third table.
        is_by_pieces = config.objectives.next_item.softmax == "sampled"
        piece = min(ITEMS_PER_PIECE, num_rows) * (sizes.item_vector_width + model.width) * is_by_pieces
        num_bytes = FLOAT * ((1 if is_by_pieces else 3) * num_rows * model.width + piece)
        parts.append(Part(name="finished representations of items", num_bytes=num_bytes, mend=_table_mend(config)))
    return parts


def _row_length(config: Config, sizes: Sizes) -> int:
    """Places of a row, on average of a step's or a chunk's rows and not less."""
    return min(config.model.max_length, 1 + 2 * sizes.num_places // max(1, sizes.num_users))


def _sum(parts: Iterable[Part]) -> int:
    return sum(part.num_bytes for part in parts)


def _num_windows(config: Config, sizes: Sizes) -> int:
    """Rows of an epoch at most."""
    return sizes.num_users + sizes.num_places // max(1, config.model.max_length // 2)


def _largest(parts: Iterable[Part]) -> Part:
    return max(parts, key=lambda part: part.num_bytes)


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / BYTES_PER_GB:.1f} GB"
