"""Vectors of all keys of a kind, in one copy for all processes of the machine, of which only what is used is in memory.

N keys, P width.
"""

import numpy as np
from numpy.typing import NDArray

from sracl_dist.columns import KEY, VECTOR
from sracl_dist.errors import StorageError
from sracl_dist.run_folder import StageFolder
from sracl_dist.shared_arrays import Room, shared_arrays


def read_vectors(folder: StageFolder, kind: str, first: int, num: int) -> NDArray[np.float32]:
    """Vectors [first + num, P] by key, zero for the keys below `first`; see `shared_arrays`.

    Raises:
        StorageError: a key is missing or doubled, a vector is not finite, or the machine has no room for the copy.
    """
    made_from = f"{folder.signature([f'{kind}/'])} {first} {num}"
    return shared_arrays(f"vectors-of-{kind}", made_from, lambda room: _fill(room, folder, kind, first, num))[VECTOR]


def _fill(room: Room, folder: StageFolder, kind: str, first: int, num: int) -> None:
    """Read shard after shard and put it in its place."""
    name = f"{kind}/"
    shards = [shard for shard in folder.files(name) if shard.endswith(".parquet")]
    if not shards:
        raise StorageError(f"{folder.shown(name)} holds no table; {folder.anew}.")
    vectors: NDArray[np.float32] | None = None
    times_N, num_rows = np.zeros(first + num, dtype=np.int32), 0
    for shard in shards:
        table = folder.read_table(shard, [KEY, VECTOR]).combine_chunks()
        keys = table[KEY].to_numpy()
        num_rows += len(keys)
        inside = (keys >= first) & (keys < first + num)
        np.add.at(times_N, keys[inside], 1)
        width = table.schema.field(VECTOR).type.list_size
        if vectors is None:
            vectors = room.add(VECTOR, np.float32, (first + num, width))
        if not len(keys):
            continue
        values = table[VECTOR].chunk(0).flatten().to_numpy(zero_copy_only=False).reshape(len(keys), width)
        if not np.isfinite(values).all():
            raise StorageError(f"{folder.shown(name)} holds vectors that are not finite; {folder.anew}.")
        vectors[keys[inside]] = values[inside]
    if num_rows != num or not (times_N[first:] == 1).all() or vectors is None:
        raise StorageError(
            f"{folder.shown(name)} has {int((times_N > 0).sum()):,} different keys in {num_rows:,} rows where the run "
            f"has {num:,} ids from {first}; {folder.anew}."
        )
