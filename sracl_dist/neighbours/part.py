"""One part of the table: its vectors, an index over them, and the best of them for any queries.

n queries, k neighbours, M vectors of the part, d width.
"""

import tempfile
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import MISSING
from sracl_dist.embed.vectors import VectorShards
from sracl_dist.errors import StageError
from sracl_dist.neighbours.plan import SearchPlan
from sracl_dist.neighbours.ranking import SCORE_TOLERANCE, Ranked, merge, pair_scores, rank, rank_nothing
from sracl_dist.neighbours.rules import NO_GROUP, Rules
from sracl_dist.neighbours.search import ExactIndex, Index, InvertedIndex

SLACK = 8
"""Candidates beyond k + 1, so that ties at the end of a list are seen without a second search."""
RERANKED = 4
"""Candidates per neighbour where the index compresses vectors, so that the exact scores have something to choose."""
MAX_CANDIDATES = 1024
"""Most candidates of a row before all vectors are looked at (exact), or what was found is taken (lists)."""
SCANNED_QUERIES, SCANNED_ROWS = 512, 16_384
"""A piece of the matrix of all scores that is made at a time; 70 MB."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """A block of queries."""

    keys: NDArray[np.int64]
    vectors: NDArray[np.float32]
    num_neighbours: int
    scan: bool = False
    """Answer by plain numpy over all vectors instead of the index."""
    num_probes: int = 0
    """Lists to visit; 0 where there are none."""
    among_changed: bool = False
    """Only compare with vectors that have changed since the last lists."""

    def of(self, rows: NDArray[np.int64]) -> "Query":
        """The same for some of the queries."""
        return replace(self, keys=self.keys[rows], vectors=self.vectors[rows])


class Part:
    """Answers queries; what it returns is exact among its vectors if its index is.

    Args:
        keys: [M] rising keys of the vectors.
        vectors: [M, d], in memory or in a file.
        index: finds candidates among them.
        rules: what a neighbour must fulfil.
    """

    def __init__(
        self, keys: NDArray[np.int64], vectors: NDArray[np.float32], index: Index, plan: SearchPlan, rules: Rules
    ) -> None:
        self._keys, self._vectors, self._index, self._plan, self._rules = keys, vectors, index, plan, rules
        own_groups = rules.groups_of(keys)
        self._rows_by_group = np.argsort(own_groups, kind="stable")
        self._groups = own_groups[self._rows_by_group]

    def answer(self, query: Query) -> Ranked:
        """Neighbours [n, k] of the queries within this part."""
        if query.scan:
            return self._scan(query.keys, query.vectors, query.num_neighbours)
        if isinstance(self._index, InvertedIndex) and self._index.num_probes != query.num_probes:
            self._index.num_probes = query.num_probes
        return self._search(query)

    def _search(self, query: Query) -> Ranked:
        """Queries with a group are compared with its members, the others with what the index finds."""
        groups = self._rules.groups_of(query.keys)
        has_group = groups != NO_GROUP
        found, scores = rank_nothing(len(query.keys), query.num_neighbours)
        free = np.flatnonzero(~has_group)
        found[free], scores[free] = self._search_index(query.keys[free], query.vectors[free], query.num_neighbours)
        for group in np.unique(groups[has_group]):
            rows = np.flatnonzero(groups == group)
            members = self._rows_by_group[slice(*np.searchsorted(self._groups, [group, group + 1]))]
            found[rows], scores[rows] = self._scan(
                query.keys[rows], query.vectors[rows], query.num_neighbours, np.sort(members)
            )
        return found, scores

    def _search_index(self, keys: NDArray[np.int64], vectors: NDArray[np.float32], num_neighbours: int) -> Ranked:
        """Candidates scored pair by pair; rows that may miss somebody are searched again with more candidates."""
        num_candidates = num_neighbours + 1 + SLACK
        if self._plan.is_compressed:
            num_candidates = max(num_candidates, RERANKED * (num_neighbours + 1))
        found, scores = rank_nothing(len(keys), num_neighbours)
        rows = np.arange(len(keys))
        while len(rows):
            approximate, candidates = self._index.search(vectors[rows], num_candidates)
            found[rows], scores[rows] = self._ranked(keys[rows], vectors[rows], candidates, num_neighbours)
            if candidates.shape[1] < num_candidates:  # every vector of the part was a candidate
                return found, scores
            rows = rows[self._may_miss(scores[rows, -1], approximate[:, -1], candidates[:, -1])]
            if num_candidates == MAX_CANDIDATES:
                break
            num_candidates = min(4 * num_candidates, MAX_CANDIDATES)
        if self._plan.is_exact and len(rows):
            found[rows], scores[rows] = self._scan_distinct(keys[rows], vectors[rows], num_neighbours)
        return found, scores

    def _may_miss(
        self, last: NDArray[np.float32], worst: NDArray[np.float32], worst_candidate: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which rows [n] may have a better neighbour behind their worst candidate.

        Args:
            last: score of the last neighbour, -inf where there are fewer than k.
            worst: what the index makes of the worst candidate.
            worst_candidate: its row, -1 where the index had no more.
        """
        if self._plan.is_exact:
            return np.maximum(last, self._rules.floor) - worst <= 2 * SCORE_TOLERANCE
        return np.isneginf(last) & (worst_candidate >= 0)

    def _ranked(
        self, keys: NDArray[np.int64], vectors: NDArray[np.float32], candidates: NDArray[np.int64], num_neighbours: int
    ) -> Ranked:
        absent = candidates < 0
        rows = np.where(absent, 0, candidates)
        scores = pair_scores(vectors, self._vectors, rows)
        candidate_keys = self._keys[rows]
        scores[absent | self._rules.refused(keys, candidate_keys, scores)] = -np.inf
        return rank(candidate_keys, scores, num_neighbours)

    def _scan(
        self,
        keys: NDArray[np.int64],
        vectors: NDArray[np.float32],
        num_neighbours: int,
        members: NDArray[np.int64] | None = None,
    ) -> Ranked:
        """Every pair in float64, without FAISS; with `members`, rising rows, among those only."""
        found, scores = rank_nothing(len(keys), num_neighbours)
        num_rows = len(self._keys) if members is None else len(members)
        for first in range(0, len(keys), SCANNED_QUERIES):
            queries = slice(first, first + SCANNED_QUERIES)
            for start in range(0, num_rows, SCANNED_ROWS):
                piece = slice(start, start + SCANNED_ROWS)
                rows = piece if members is None else members[piece]
                best = self._scan_piece(keys[queries], vectors[queries], num_neighbours, rows)
                found[queries], scores[queries] = merge([(found[queries], scores[queries]), best])
        return found, scores

    def _scan_distinct(self, keys: NDArray[np.int64], vectors: NDArray[np.float32], num_neighbours: int) -> Ranked:
        """The same for queries that are mostly equal: each distinct one is looked at once, and self taken out after."""
        distinct, place = np.unique(vectors, axis=0, return_inverse=True)
        nobody = np.full(len(distinct), MISSING, np.int64)
        found, scores = self._scan(nobody, distinct, num_neighbours + 1)
        found, scores = found[place.ravel()], scores[place.ravel()]
        return rank(found, np.where(found == keys[:, None], -np.inf, scores).astype(np.float32), num_neighbours)

    def _scan_piece(
        self,
        keys: NDArray[np.int64],
        vectors: NDArray[np.float32],
        num_neighbours: int,
        rows: slice | NDArray[np.int64],
    ) -> Ranked:
        others = np.broadcast_to(self._keys[rows], (len(keys), len(self._keys[rows])))
        scores = (vectors.astype(np.float64) @ self._vectors[rows].T.astype(np.float64)).astype(np.float32)
        scores[self._rules.refused(keys, others, scores)] = -np.inf
        if scores.shape[1] <= num_neighbours:
            return rank(others, scores, num_neighbours)
        # Only those near the best are sorted: all above the k-th score, then its ties by rising key.
        kth = np.partition(scores, -num_neighbours, axis=1)[:, -num_neighbours, None]
        place = np.where(scores > kth, 0, np.where(scores == kth, 1, 2)).astype(np.int8)
        near = np.argsort(place, axis=1, kind="stable")[:, :num_neighbours]
        return rank(np.take_along_axis(others, near, axis=1), np.take_along_axis(scores, near, axis=1), num_neighbours)


def load_part(
    shards: VectorShards, keys: NDArray[np.int64], plan: SearchPlan, trained: NDArray[np.uint8] | None, rules: Rules
) -> Part:
    """Read the vectors of the keys and build the index over them.

    Raises:
        StageError: a vector is not finite; names its key.
    """
    vectors = _space(len(keys), shards.width, on_disk=plan.on_disk)
    lists = None if trained is None else InvertedIndex(trained, num_probes=1)
    for shard, rows in shards.pieces(int(keys[0]), int(keys[-1]) + 1):
        first, last = np.searchsorted(keys, [shard.start, shard.stop])
        wanted = rows[keys[first:last] - shard.start]
        refuse_broken(keys[first:last], wanted, shards.kind)
        vectors[first:last] = wanted
        if lists is not None:
            lists.add(wanted)
    if lists is not None:
        lists.finish()
    return Part(keys, vectors, lists or ExactIndex(vectors), plan, rules)


def refuse_broken(keys: NDArray[np.int64], vectors: NDArray[np.float32], kind: str) -> None:
    """Raise StageError, with the first key, where a vector holds something that is not a finite number."""
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise StageError(
            f"The vector of key {keys[broken[0]]} of {kind} is not finite; run jobs/embed.py again with another "
            f"embed.model."
        )


def _space(num_rows: int, width: int, *, on_disk: bool) -> NDArray[np.float32]:
    """Room for vectors; a file without a name, which goes when the process does, where memory is short."""
    if not on_disk:
        return np.empty((num_rows, width), np.float32)
    return np.memmap(tempfile.TemporaryFile(prefix="sracl-vectors-"), np.float32, "w+", shape=(num_rows, width))
