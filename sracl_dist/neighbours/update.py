"""What can be kept of the last lists when some vectors are new, changed or gone.

A list stays right where its own vector and all its members are as they were: then only a new or changed vector can
improve it. Every row is known again by a hash of its vector and its group. Lists are kept as they were before
`neighbours.mutual`.

N rows, k neighbours.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import KEY, MISSING, NEIGHBOURS, SCORES
from sracl_dist.config.sections import NeighboursConfig
from sracl_dist.embed.vectors import VectorShards
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.neighbours.ranking import Ranked
from sracl_dist.run_folder import StageFolder

FOLDER = "lists/"
HASH = "vector_hash"
NO_MATTER = ("mutual", "max_changed_share", "num_index_shards", "query_block_rows", "budget_bytes")
"""Settings that do not change a list."""
FOR_PROBES = ("num_sampled", "min_recall")
"""Settings that only matter to how many inverted lists a query visits."""
LISTS_VERSION = 1
"""Raised when the code changes what a list holds."""


@dataclass(frozen=True, kw_only=True)
class Lists:
    """Lists of one kind [N, k], and what they were made from."""

    keys: NDArray[np.int64]
    scores: NDArray[np.float32]
    hashes: NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Which rows need what."""

    kept: Lists
    changed_keys: NDArray[np.int64]
    """Keys whose vector is new or another, rising."""
    needs_search: NDArray[np.bool_]
    """[N]: rows that are searched among all vectors; the others are only compared with the changed ones."""


def row_hashes(shards: VectorShards, groups: Sequence[str]) -> NDArray[np.uint64]:
    """A hash [N] of every vector, and of its group where there are groups."""
    hashes = np.empty(shards.num_rows, np.uint64)
    for shard, rows in shards.pieces(shards.first_key, shards.stop_key):
        first = shard.start - shards.first_key
        for row, vector in enumerate(np.ascontiguousarray(rows), start=first):
            group = groups[row].encode() if groups else b""
            digest = hashlib.blake2b(vector.tobytes() + group, digest_size=8).digest()
            hashes[row] = int.from_bytes(digest, "little")
    return hashes


def compare(old: Lists, hashes: NDArray[np.uint64], first_key: int) -> Changes:
    """Tell rows that can keep their lists from those that cannot."""
    num_both = min(len(old.hashes), len(hashes))
    changed = np.ones(len(hashes), bool)
    changed[:num_both] = old.hashes[:num_both] != hashes[:num_both]
    # Members that are gone count as changed ones.
    is_other = np.concatenate([changed, np.ones(max(0, len(old.hashes) - len(hashes)), bool)])
    kept = Lists(keys=old.keys[:num_both], scores=old.scores[:num_both], hashes=old.hashes[:num_both])
    members = kept.keys
    lost = ((members != MISSING) & is_other[np.maximum(members - first_key, 0)]).any(axis=1)
    needs_search = changed.copy()
    needs_search[:num_both] |= lost
    return Changes(kept=kept, changed_keys=np.flatnonzero(changed) + first_key, needs_search=needs_search)


def made_from(settings: NeighboursConfig, plan: SearchPlan) -> dict[str, Any]:
    """What the lists depend on beside the vectors."""
    no_matter = (*NO_MATTER, *FOR_PROBES) if plan.is_exact else NO_MATTER
    values = {name: value for name, value in asdict(settings).items() if name not in no_matter}
    return {**values, "kind": plan.kind, "num_lists": plan.num_lists, "lists_version": LISTS_VERSION}


def save_lists(folder: StageFolder, kind: str, lists: Lists, first_key: int, origin: dict[str, Any]) -> None:
    """Keep them for the next time; the settings are in the file itself, so that both are replaced at once."""
    columns = {**table_columns(lists.keys, lists.scores, first_key), HASH: pa.array(lists.hashes)}
    table = pa.table(columns).replace_schema_metadata({"made_from": json.dumps(origin, sort_keys=True)})
    folder.write_table(f"{FOLDER}{kind}.parquet", table)


def load_lists(folder: StageFolder, kind: str, origin: dict[str, Any]) -> Lists | None:
    """What was kept, or None where there is nothing or it was made with other settings."""
    name = f"{FOLDER}{kind}.parquet"
    if not folder.exists(name):
        return None
    table = folder.read_table(name)
    if (table.schema.metadata or {}).get(b"made_from") != json.dumps(origin, sort_keys=True).encode():
        return None
    keys, scores = lists_of(table)
    return Lists(keys=keys, scores=scores, hashes=table[HASH].to_numpy())


def table_columns(keys: NDArray[np.int64], scores: NDArray[np.float32], first_key: int) -> dict[str, pa.Array]:
    """Columns key, neighbours and scores of consecutive rows."""
    width = keys.shape[1]
    return {
        KEY: pa.array(np.arange(first_key, first_key + len(keys)), pa.int64()),
        NEIGHBOURS: pa.FixedSizeListArray.from_arrays(pa.array(keys.ravel(), pa.int32()), width),
        SCORES: pa.FixedSizeListArray.from_arrays(pa.array(scores.ravel(), pa.float32()), width),
    }


def lists_of(table: pa.Table) -> Ranked:
    """Neighbours [N, k] and scores [N, k] of a table."""
    neighbours, scores = (table[name].combine_chunks() for name in (NEIGHBOURS, SCORES))
    if isinstance(neighbours, pa.ChunkedArray):
        neighbours, scores = pa.concat_arrays(neighbours.chunks), pa.concat_arrays(scores.chunks)
    shape = (table.num_rows, neighbours.type.list_size)
    return (
        neighbours.flatten().to_numpy().reshape(shape).astype(np.int64),
        scores.flatten().to_numpy().reshape(shape),
    )
