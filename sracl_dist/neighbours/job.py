"""neighbours: parts of the table on Ray workers, query blocks streamed against all of them, blocks committed."""

import itertools
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.cluster import Cluster, broadcast_shards, connected
from sracl_dist.columns import MISSING
from sracl_dist.config import Config
from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.embed.vectors import FIRST_KEY, VectorShards
from sracl_dist.errors import StageError
from sracl_dist.neighbours.lists import train_once, tune_probes
from sracl_dist.neighbours.part import Part, Query, load_part
from sracl_dist.neighbours.plan import SearchPlan, plan_search
from sracl_dist.neighbours.quality import recall, sample_rows
from sracl_dist.neighbours.ranking import Ranked, merge, rank_nothing
from sracl_dist.neighbours.rules import Rules, load_rules, mutual_only
from sracl_dist.neighbours.update import (
    Changes,
    Lists,
    compare,
    lists_of,
    load_lists,
    made_from,
    row_hashes,
    save_lists,
    table_columns,
)
from sracl_dist.observe import Progress, say
from sracl_dist.run_folder import RunFolder, StageFolder
from sracl_dist.shards import pending_shards, plan_shards
from sracl_dist.stages import StageResult

QUALITY = "quality.json"
INDEX = "index/"
"""What an interrupted search needs to go on as it began."""
SAMPLE_SEED = 0
"""Chooses the rows whose recall is measured; not run.seed, so that runs with other seeds can share the tables."""
PEAK = "peak memory"
"""Asks a worker for its largest resident memory instead of neighbours."""

Ask = Callable[[Query | str], list[Any]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that the search of one kind needs to know."""

    kind: str
    settings: NeighboursConfig
    run: RunFolder
    shards: VectorShards
    rules: Rules
    plan: SearchPlan
    changes: Changes | None
    """None where every row is searched."""

    @property
    def folder(self) -> StageFolder:
        """Where the stage writes."""
        return self.run.stage("neighbours")


def build_neighbours(config: Config, run: RunFolder) -> StageResult:
    """Write `items.parquet` and `users.parquet` (key, neighbours, scores) and `quality.json`.

    Raises:
        StageError: a vector is not finite, the vectors do not fit into `neighbours.budget_bytes`, or the measured
            recall is below `neighbours.min_recall`.
        StorageError: a vector is missing or has another width.
    """
    folder = run.stage("neighbours")
    rows, quality = {}, {}
    with connected(config.cluster) as cluster:
        for kind in FIRST_KEY:
            rows[kind], quality[kind] = _build_kind(kind, config.neighbours, run, cluster)
    folder.write_json(QUALITY, quality)
    folder.delete([*folder.files("blocks/"), *folder.files(INDEX)])
    k = config.neighbours.num_neighbours
    return StageResult(
        rows=rows,
        details={"quality": quality},
        summary=[
            f"{kind}: {facts['index']} search, recall@{k} {facts['recall']:.4f} on {facts['num_sampled']:,} rows, "
            f"{facts['num_searched']:,} of {rows[kind]:,} lists made anew, "
            f"{facts['peak_bytes'] / 1e9:.2f} GB at most in a worker"
            for kind, facts in quality.items()
        ],
    )


def _build_kind(kind: str, settings: NeighboursConfig, run: RunFolder, cluster: Cluster) -> tuple[int, dict[str, Any]]:
    """Search, measure and write one table; returns its rows and what was measured."""
    shards, folder = VectorShards(run, kind), run.stage("neighbours")
    rules, groups = load_rules(settings, run, kind, shards.first_key)
    plan = plan_search(settings, shards.num_rows, shards.width, has_gpu=cluster.num_gpus > 0)
    origin, hashes = made_from(settings, plan), row_hashes(shards, groups)
    changes = _changes(load_lists(folder, kind, origin), hashes, shards.first_key, settings.max_changed_share)
    work = Work(kind=kind, settings=settings, run=run, shards=shards, rules=rules, plan=plan, changes=changes)
    _forget_other_work(folder, kind, origin)
    with _workers(work, cluster) as ask:
        num_probes = _num_probes(work, ask)
        started = time.monotonic()
        keys, scores = _search_all(work, ask, num_probes)
        search_s = time.monotonic() - started
        sample = sample_rows(shards.num_rows, settings.num_sampled, SAMPLE_SEED)
        measured = recall((keys[sample], scores[sample]), _truth(work, ask, sample))
        peak_bytes = max(ask(PEAK))
    if measured < settings.min_recall:
        raise StageError(
            f"recall@{settings.num_neighbours} of the {kind} table is {measured:.4f}, below neighbours.min_recall="
            f"{settings.min_recall}; lower it, or raise neighbours.num_probes={num_probes}."
        )
    save_lists(folder, kind, Lists(keys=keys, scores=scores, hashes=hashes), shards.first_key, origin)
    if settings.mutual:
        keys, scores = mutual_only(keys, scores, shards.first_key, MISSING)
    folder.write_table(f"{kind}.parquet", pa.table(table_columns(keys, scores, shards.first_key)))
    return shards.num_rows, {
        "recall": measured,
        "num_sampled": len(sample),
        "index": plan.kind,
        "num_lists": plan.num_lists,
        "num_probes": num_probes,
        "num_searched": shards.num_rows if changes is None else int(changes.needs_search.sum()),
        "num_short": int((keys[:, -1] == MISSING).sum()),
        "search_s": round(search_s, 3),
        "peak_bytes": peak_bytes,
    }


def _forget_other_work(folder: StageFolder, kind: str, origin: dict[str, Any]) -> None:
    """Delete what an interrupted search left that was planned differently, such as with another number of parts."""
    name = f"{INDEX}{kind}.origin.json"
    if not folder.exists(name) or folder.read_json(name) != origin:
        own = [name for name in folder.files(INDEX) if name.startswith(f"{INDEX}{kind}.")]
        folder.delete([*folder.files(f"blocks/{kind}/"), *own])
        folder.write_json(name, origin)


def _changes(old: Lists | None, hashes: NDArray[np.uint64], first_key: int, max_share: float) -> Changes | None:
    """What differs from the last lists, or None where there are none or too little is as it was."""
    if old is None:
        return None
    changes = compare(old, hashes, first_key)
    return changes if len(changes.changed_keys) <= max_share * len(hashes) else None


@contextmanager
def _workers(work: Work, cluster: Cluster) -> Iterator[Ask]:
    """Workers that hold the table in parts."""
    num_parts = min(work.settings.num_index_shards, work.shards.num_rows)
    cpus = 1 if cluster.num_gpus else cluster.cpus_for_each(num_parts)
    trained = None
    if not work.plan.is_exact:
        trained = train_once(work.folder, f"{INDEX}{work.kind}.faiss", work.shards, work.plan, cpus)
    changed = np.empty(0, np.int64) if work.changes is None else work.changes.changed_keys
    bounds = np.linspace(work.shards.first_key, work.shards.stop_key, num_parts + 1).astype(int).tolist()
    parts = [
        (work.run, work.kind, start, stop, work.plan, trained, work.rules, changed)
        for start, stop in itertools.pairwise(bounds)
    ]
    with broadcast_shards(_make_part, parts, cpus_per_worker=cpus, gpus_per_worker=1 if cluster.num_gpus else 0) as ask:
        yield ask


def _make_part(
    run: RunFolder,
    kind: str,
    start: int,
    stop: int,
    plan: SearchPlan,
    trained: NDArray[np.uint8] | None,
    rules: Rules,
    changed: NDArray[np.int64],
) -> Callable[[Query | str], Ranked | int]:
    """Runs in a worker: hold the keys start..stop-1, and those among them that have changed once more."""
    shards = VectorShards(run, kind)
    whole = load_part(shards, np.arange(start, stop), plan, trained, rules)
    own = changed[(changed >= start) & (changed < stop)]
    changed_part: Part | None = None
    if len(own):
        changed_part = load_part(shards, own, SearchPlan(kind="exact"), None, rules)

    def answer(query: Query | str) -> Ranked | int:
        if isinstance(query, str):
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        part = changed_part if query.among_changed else whole
        return rank_nothing(len(query.keys), query.num_neighbours) if part is None else part.answer(query)

    return answer


def _num_probes(work: Work, ask: Ask) -> int:
    """Lists that a query visits: as configured, or as few as reach the recall on a sample; 0 for an exact search."""
    if work.plan.is_exact:
        return 0
    if work.settings.num_probes is not None:
        return work.settings.num_probes
    name = f"{INDEX}{work.kind}.json"
    if work.folder.exists(name):
        return int(work.folder.read_json(name)["num_probes"])
    num_probes = tune_probes(work.shards, work.plan, work.settings, ask)
    work.folder.write_json(name, {"num_probes": num_probes})
    return num_probes


def _search_all(work: Work, ask: Ask, num_probes: int) -> Ranked:
    """Search all blocks that are not committed yet; returns all lists [N, k]."""
    shards, folder = work.shards, work.folder
    plan = plan_shards(f"blocks/{work.kind}", shards.first_key, shards.num_rows, work.settings.query_block_rows)
    pending = pending_shards(folder, plan)
    num_done = shards.num_rows - sum(shard.num_rows for shard in pending)
    if work.changes is not None:
        num = int(work.changes.needs_search.sum())
        say(f"neighbours: {work.kind}: {num:,} of {shards.num_rows:,} lists are searched, the others only improved")
    progress = Progress(f"neighbours: {work.kind}", shards.num_rows, done=num_done)
    for shard in pending:
        query = Query(
            keys=np.arange(shard.start, shard.stop),
            vectors=shards.read(shard.start, shard.stop),
            num_neighbours=work.settings.num_neighbours,
            num_probes=num_probes,
        )
        keys, scores = _search_block(query, work.changes, ask, shards.first_key)
        folder.write_table(shard.name, pa.table(table_columns(keys, scores, shard.start)))
        progress.update(shard.num_rows)
    progress.close()
    return lists_of(pa.concat_tables([folder.read_table(shard.name) for shard in plan]))


def _search_block(query: Query, changes: Changes | None, ask: Ask, first_key: int) -> Ranked:
    """Lists of one block: searched among all, or kept and improved by what has changed."""
    if changes is None:
        return merge(ask(query))
    rows = query.keys - first_key
    found, scores = rank_nothing(len(rows), query.num_neighbours)
    anew, kept = np.flatnonzero(changes.needs_search[rows]), np.flatnonzero(~changes.needs_search[rows])
    if len(anew):
        found[anew], scores[anew] = merge(ask(query.of(anew)))
    if len(kept):
        own = changes.kept.keys[rows[kept]], changes.kept.scores[rows[kept]]
        better = ask(replace(query.of(kept), among_changed=True)) if len(changes.changed_keys) else []
        found[kept], scores[kept] = merge([own, *better])
    return found, scores


def _truth(work: Work, ask: Ask, rows: NDArray[np.int64]) -> Ranked:
    """The true lists of some rows."""
    keys = rows + work.shards.first_key
    query = Query(
        keys=keys, vectors=work.shards.read_keys(keys), num_neighbours=work.settings.num_neighbours, scan=True
    )
    return merge(ask(query))
