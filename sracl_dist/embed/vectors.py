"""The vectors of embed: a shard as it is written, and all as they are read, whole or by ranges of keys."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sracl_dist.columns import KEY, VECTOR
from sracl_dist.errors import StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import Shard, committed_shards

FIRST_KEY = {"items": 1, "users": 0}


def vectors_table(shard: Shard, vectors: NDArray[np.float32], precision: str) -> pa.Table:
    """The table of a shard, whose vectors are [num_rows, d]."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel().astype(precision)), vectors.shape[1])
    return pa.table({KEY: pa.array(range(shard.start, shard.stop), pa.int64()), VECTOR: column})


class VectorShards:
    """Vectors of one kind, N of them of width d, by dense key.

    Raises:
        StorageError: the shards do not hold every key once, or have another width than the first.
    """

    def __init__(self, run: RunFolder, kind: str) -> None:
        self._folder, self.kind = run.stage("embed"), kind
        self.first_key = FIRST_KEY[kind]
        self._shards = committed_shards(self._folder, kind)
        starts, stops = [shard.start for shard in self._shards], [shard.stop for shard in self._shards]
        manifest = self._folder.manifest()
        last = [manifest.rows[kind] + self.first_key] if manifest else stops[-1:]
        if not self._shards or starts != [self.first_key, *stops[:-1]] or stops[-1:] != last:
            raise StorageError(f"{self._folder.shown(kind)} does not hold every key once; {self._folder.anew}.")
        self.stop_key = stops[-1]
        self.num_rows = self.stop_key - self.first_key
        self.width = len(self._read_shard(self._shards[0])[0])

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Vectors [stop - start, d] of the keys start..stop-1; the memory is the caller's own."""
        vectors = np.empty((stop - start, self.width), np.float32)
        for shard, rows in self.pieces(start, stop):
            vectors[shard.start - start : shard.stop - start] = rows
        return vectors

    def read_keys(self, keys: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vectors [n, d] of rising keys."""
        vectors = np.empty((len(keys), self.width), np.float32)
        for shard in self._shards:
            first, last = np.searchsorted(keys, [shard.start, shard.stop])
            if first < last:
                vectors[first:last] = self._read_shard(shard)[keys[first:last] - shard.start]
        return vectors

    def pieces(self, start: int, stop: int) -> Iterator[tuple[Shard, NDArray[np.float32]]]:
        """The keys start..stop-1 in pieces, as they lie in the shards: range and vectors."""
        for shard in self._shards:
            first, last = max(start, shard.start), min(stop, shard.stop)
            if first < last:
                rows = self._read_shard(shard)[first - shard.start : last - shard.start]
                yield Shard(self.kind, first, last), rows

    def _read_shard(self, shard: Shard) -> NDArray[np.float32]:
        table = self._folder.read_table(shard.name, [KEY, VECTOR]).sort_by(KEY).combine_chunks()
        if not np.array_equal(table[KEY].to_numpy(), np.arange(shard.start, shard.stop)):
            raise StorageError(f"{self._folder.shown(shard.name)} lacks keys or doubles them; {self._folder.anew}.")
        column = table[VECTOR].chunk(0) if table.num_rows else pa.array([], table.schema.field(VECTOR).type)
        width = column.type.list_size
        if width != getattr(self, "width", width):
            raise StorageError(
                f"The vector of key {shard.start} of {self.kind} has {width} numbers and that of key {self.first_key} "
                f"has {self.width}; {self._folder.anew}."
            )
        vectors: NDArray[np.float32] = column.flatten().to_numpy().reshape(shard.num_rows, width)
        return vectors


def load_vectors(run: RunFolder, kind: str) -> NDArray[np.float32]:
    """All vectors of a kind [N, d]; row i belongs to key i for users and key i + 1 for items.

    Raises:
        StorageError: a key is missing or doubled.
    """
    shards = VectorShards(run, kind)
    return shards.read(shards.first_key, shards.stop_key)
