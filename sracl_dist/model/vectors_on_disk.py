"""Vectors of all keys of a kind in a file without a name, of which only what is used stays in memory.

N keys, P width.
"""

import os
import tempfile

import numpy as np
from numpy.typing import NDArray

from sracl_dist.artifacts import StageFolder
from sracl_dist.columns import KEY, VECTOR
from sracl_dist.errors import StorageError


def read_vectors(folder: StageFolder, kind: str, first: int, num: int) -> NDArray[np.float32]:
    """Vectors [first + num, P] by key, zero for the keys below `first`; shard after shard is read and put in its place.

    The array is mapped from a file in the folder for temporary files, which the system deletes when the array is
    forgotten; the pages are the system's to drop and read again.

    Raises:
        StorageError: a key is missing or doubled, a vector is not finite, or the temporary file has no room.
    """
    name = f"{kind}/"
    shards = [shard for shard in folder.files(name) if shard.endswith(".parquet")]
    if not shards:
        raise StorageError(f"{folder.path(name)} holds no table; run the stage {folder.name} again.")
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
            vectors = _mapped(first + num, width)
        if not len(keys):
            continue
        values = table[VECTOR].chunk(0).flatten().to_numpy(zero_copy_only=False).reshape(len(keys), width)
        if not np.isfinite(values).all():
            raise StorageError(f"{folder.path(name)} holds vectors that are not finite; run jobs/embed.py again.")
        vectors[keys[inside]] = values[inside]
    if num_rows != num or not (times_N[first:] == 1).all() or vectors is None:
        raise StorageError(
            f"{folder.path(name)} has {int((times_N > 0).sum()):,} different keys in {num_rows:,} rows where the run "
            f"has {num:,} ids from {first}; run jobs/{folder.name}.py again."
        )
    return vectors


def _mapped(num: int, width: int) -> NDArray[np.float32]:
    """A new array of zeros in a file that has no name any more."""
    size = num * width * np.dtype(np.float32).itemsize
    if size == 0:
        return np.zeros((num, width), np.float32)
    with tempfile.TemporaryFile(prefix="sracl-vectors-") as file:
        try:
            # Without its place reserved, a full disk would end the process at some later write.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()} has no room for {size / 1e9:.1f} GB of vectors ({error.strerror}); "
                f"set TMPDIR to a folder that has."
            ) from None
        return np.memmap(file, dtype=np.float32, mode="r+", shape=(num, width))
