"""neighbours: parts of the table on Ray workers, query blocks streamed against all of them, blocks committed."""

import itertools
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.artifacts import RunFolder, StageFolder
from sracl_dist.cluster import Cluster, broadcast_shards, connected
from sracl_dist.columns import KEY, MISSING, NEIGHBOURS, SCORES
from sracl_dist.config import Config
from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.errors import StageError
from sracl_dist.neighbours.merge import select_neighbours, unsettled_rows
from sracl_dist.neighbours.quality import sampled_recall
from sracl_dist.observe import Progress
from sracl_dist.profiles.embed import FIRST_KEY, load_vectors
from sracl_dist.shards import Shard, pending_shards, plan_shards
from sracl_dist.stages import StageResult

SLACK = 8
"""Candidates beyond k + 1 per part, so that ties at the end of a list are seen without a second search."""
MAX_CANDIDATES = 1024
"""Most candidates per part for a row with many equal vectors; beyond that the lowest keys found are taken."""
QUALITY = "quality.json"
SAMPLE_SEED = 0
"""Chooses the rows whose recall is measured; not run.seed, so that runs with other seeds can share the tables."""

Candidates = tuple[NDArray[np.float32], NDArray[np.int64]]
Query = tuple[NDArray[np.float32], int]


def build_neighbours(config: Config, run: RunFolder) -> StageResult:
    """Write `items.parquet` and `users.parquet` (key, neighbours, scores) and `quality.json`.

    Raises:
        StageError: a vector is not finite, or the measured recall is below `neighbours.min_recall`.
    """
    folder = run.stage("neighbours")
    rows, quality = {}, {}
    with connected(config.cluster) as cluster:
        for kind in FIRST_KEY:
            vectors = load_vectors(run, kind)
            _refuse_broken(vectors, kind)
            table = _search_kind(kind, vectors, config.neighbours, run, cluster)
            found = np.stack(table[NEIGHBOURS].to_numpy(zero_copy_only=False))
            settings = config.neighbours
            quality[kind] = sampled_recall(found, vectors, FIRST_KEY[kind], settings.num_sampled, SAMPLE_SEED)
            if quality[kind]["recall"] < settings.min_recall:
                raise StageError(
                    f"recall@{settings.num_neighbours} of the {kind} table is {quality[kind]['recall']:.4f}, below "
                    f"neighbours.min_recall={settings.min_recall}; lower it or search more widely."
                )
            folder.write_table(f"{kind}.parquet", table)
            rows[kind] = table.num_rows
    folder.write_json(QUALITY, quality)
    folder.delete(folder.files("blocks/"))
    recalls = ", ".join(f"{kind} {value['recall']:.4f}" for kind, value in quality.items())
    return StageResult(
        rows=rows,
        details={"quality": quality},
        summary=[f"recall@{config.neighbours.num_neighbours} against exact search on a sample: {recalls}"],
    )


def _search_kind(
    kind: str, vectors: NDArray[np.float32], settings: NeighboursConfig, run: RunFolder, cluster: Cluster
) -> pa.Table:
    """Search all blocks that are not committed yet; returns the whole table."""
    folder, first_key = run.stage("neighbours"), FIRST_KEY[kind]
    plan = plan_shards(f"blocks/{kind}", first_key, len(vectors), settings.query_block_rows)
    pending = pending_shards(folder, plan)
    num_parts = min(settings.num_index_shards, len(vectors))
    bounds = np.linspace(0, len(vectors), num_parts + 1).astype(int).tolist()
    parts = [(run, kind, start, stop) for start, stop in itertools.pairwise(bounds)]
    progress = Progress(f"neighbours: {kind}", len(vectors), done=len(vectors) - sum(s.num_rows for s in pending))
    with broadcast_shards(
        _make_searcher,
        parts,
        cpus_per_worker=1 if cluster.num_gpus else cluster.cpus_for_each(num_parts),
        gpus_per_worker=1 if cluster.num_gpus else 0,
    ) as search:
        for shard in pending:
            block = vectors[shard.start - first_key : shard.stop - first_key]
            keys = np.arange(shard.start, shard.stop)
            found, scores = _search_block(search, keys, block, vectors, first_key, settings.num_neighbours)
            _commit(folder, shard, keys, found, scores)
            progress.update(shard.num_rows)
    progress.close()
    return pa.concat_tables([folder.read_table(shard.name) for shard in plan])


def _search_block(
    search: Callable[[Query], list[Candidates]],
    keys: NDArray[np.int64],
    block: NDArray[np.float32],
    vectors: NDArray[np.float32],
    first_key: int,
    num_neighbours: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Neighbours of one block; rows that end in a tie are searched again with more candidates."""
    num_candidates = num_neighbours + 1 + SLACK
    found = np.full((len(keys), num_neighbours), MISSING, np.int64)
    scores = np.full((len(keys), num_neighbours), -np.inf, np.float32)
    rows = np.arange(len(keys))
    while len(rows):
        parts = search((block[rows], num_candidates))
        candidates = np.concatenate([part_keys for _, part_keys in parts], axis=1)
        found[rows], scores[rows] = select_neighbours(
            keys[rows], block[rows], candidates, vectors, first_key, num_neighbours
        )
        if num_candidates == MAX_CANDIDATES:
            break
        # A part that returned fewer candidates than it was asked for has no others.
        worst = [part_scores[:, -1] for part_scores, _ in parts if part_scores.shape[1] == num_candidates]
        rows = rows[unsettled_rows(scores[rows], worst)]
        num_candidates = min(4 * num_candidates, MAX_CANDIDATES)
    return found, scores


def _make_searcher(run: RunFolder, kind: str, start: int, stop: int) -> Callable[[Query], Candidates]:
    """Runs in a worker: hold rows start..stop-1 of the table."""
    from sracl_dist.neighbours.search import IndexPart

    part = IndexPart(FIRST_KEY[kind] + start, load_vectors(run, kind)[start:stop])
    return lambda query: part.search(*query)


def _commit(
    folder: StageFolder, shard: Shard, keys: NDArray[np.int64], found: NDArray[np.int64], scores: NDArray[np.float32]
) -> None:
    width = found.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel(), pa.int32()), width)
    score_lists = pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel(), pa.float32()), width)
    folder.write_table(shard.name, pa.table({KEY: pa.array(keys), NEIGHBOURS: lists, SCORES: score_lists}))


def _refuse_broken(vectors: NDArray[np.float32], kind: str) -> None:
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise StageError(
            f"{len(broken):,} vectors of {kind} are not finite, the first with key {broken[0] + FIRST_KEY[kind]}; "
            f"run jobs/embed.py again with another embed.model."
        )
