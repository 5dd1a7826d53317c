"""Vectors by ranges of keys, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from sracl_dist.columns import KEY, VECTOR
from sracl_dist.embed.vectors import VectorShards, load_vectors
from sracl_dist.errors import StorageError
from sracl_dist.run_folder import RunFolder
from sracl_dist.shards import Shard

WIDTH = 3


def write(run: RunFolder, start: int, stop: int, *, keys: list[int] | None = None, width: int = WIDTH) -> None:
    own = np.arange(start, stop) if keys is None else np.array(keys)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors_of(own, width).ravel()), width)
    run.stage("embed").write_table(Shard("items", start, stop).name, pa.table({KEY: own, VECTOR: column}))


def vectors_of(keys: NDArray[np.int64], width: int = WIDTH) -> NDArray[np.float32]:
    return (keys[:, None] * 10 + np.arange(width)).astype(np.float32)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = RunFolder(str(tmp_path))
    write(run, 1, 5)
    write(run, 5, 8, keys=[7, 5, 6])
    write(run, 8, 9)
    return run


def test_ranges_and_keys(run: RunFolder) -> None:
    shards = VectorShards(run, "items")
    assert (shards.num_rows, shards.width, shards.first_key, shards.stop_key) == (8, WIDTH, 1, 9)
    np.testing.assert_array_equal(load_vectors(run, "items"), vectors_of(np.arange(1, 9)))
    for start, stop in ((1, 9), (4, 6), (5, 5), (8, 9)):
        np.testing.assert_array_equal(shards.read(start, stop), vectors_of(np.arange(start, stop)))
    keys = np.array([1, 4, 6, 8])
    np.testing.assert_array_equal(shards.read_keys(keys), vectors_of(keys))
    pieces = [(piece.start, piece.stop, len(rows)) for piece, rows in shards.pieces(3, 7)]
    assert pieces == [(3, 5, 2), (5, 7, 2)]


def test_a_missing_shard_is_noticed(run: RunFolder) -> None:
    run.stage("embed").delete([Shard("items", 5, 8).name])
    with pytest.raises(StorageError, match=r"does not hold every key once; delete .+ and run jobs/embed"):
        VectorShards(run, "items")
    with pytest.raises(StorageError, match="does not hold every key once"):
        VectorShards(run, "users")


def test_doubled_keys_and_another_width_are_refused(run: RunFolder) -> None:
    write(run, 8, 10, keys=[8, 8])
    run.stage("embed").delete([Shard("items", 8, 9).name])
    with pytest.raises(StorageError, match="lacks keys or doubles them"):
        load_vectors(run, "items")
    write(run, 8, 10, width=4)
    with pytest.raises(StorageError, match="vector of key 8 of items has 4 numbers and that of key 1 has 3"):
        load_vectors(run, "items")
